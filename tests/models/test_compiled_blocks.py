"""Blocks of compiled steps are the same memory: values, gradients, states, padding and packing."""

import copy
import pickle
from functools import partial

import pytest
import torch

from mnemos.memories import DNC, NTM, LinearAssociator, Recurrent
from mnemos.memories.stepped import SteppedMemory
from mnemos.models.compiled_blocks import CompiledBlocks
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.testing.trial import check_runs, past, random_inputs, random_steps, trial

# The tracer's own doings, which it hides where warnings are no errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated"),
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check. is deprecated:FutureWarning"),
]

MEMORIES = {
    "DNC": lambda: DNC(5, slots=4, width=3, read_heads=2),
    "NTM": lambda: NTM(5, slots=4, width=3),
}


def around(memory: SteppedMemory) -> MemoryAugmented:
    torch.manual_seed(0)
    return MemoryAugmented(Recurrent(2 + memory.output_size, 5), memory, 3)


def check_blocks(network: MemoryAugmented, backend: str) -> None:
    blocks, state = CompiledBlocks(network, 3, backend), past(network)
    flags = {"mask": random_steps(network, 0.7, 7, seed=1), "reset": random_steps(network, 0.3, 7, seed=2)}
    for steps in ({}, flags):
        inputs = random_inputs(network, 7)  # two blocks, and a step that is left
        expected = trial(network, partial(network, **steps), inputs, state)
        check_runs(trial(network, partial(blocks, **steps), inputs, state), expected, 1e-4, "in blocks")
    torch.compiler.reset()


@pytest.mark.compiles
@pytest.mark.parametrize("name", MEMORIES)
def test_blocks_are_the_memory_itself(name) -> None:
    check_blocks(around(MEMORIES[name]()), "aot_eager")


@pytest.mark.compiles
def test_links_that_are_too_many_for_the_cache_are_the_same_within_a_block() -> None:
    check_blocks(around(DNC(5, slots=150, width=2, read_heads=2)), "aot_eager")


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MEMORIES)
def test_blocks_are_the_memory_itself_as_machine_code(name) -> None:
    check_blocks(around(MEMORIES[name]()), "inductor")


def test_a_copy_is_a_network_of_its_own() -> None:
    blocks = CompiledBlocks(LinearAssociator(2), steps=4, backend="eager")
    inputs = torch.randn(1, 3, 2)  # shorter than a block: nothing is compiled
    expected, state = blocks(inputs)
    for other in (copy.deepcopy(blocks), pickle.loads(pickle.dumps(blocks))):
        outputs, after = other(inputs)
        torch.testing.assert_close((outputs, *after), (expected, *state))
        assert other.memory is not blocks.memory
    assert blocks(inputs[:, :0])[0].shape == (1, 0, 2)


def test_a_block_has_a_step_at_least() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        CompiledBlocks(LinearAssociator(2), steps=0)
