"""A controller beside a memory: the laws of every memory, and what only the wiring claims."""

import pytest
import torch
from torch import nn

from mnemos.memories import SAM, Recurrent
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.testing import MemorySuite


class TestLaws(MemorySuite):
    @pytest.fixture(params=["recurrent", "feed_forward"])
    def memory(self, request) -> MemoryAugmented:
        torch.manual_seed(0)
        if request.param == "recurrent":
            return MemoryAugmented(Recurrent(7, 5, cell="gru"), Recurrent(5, 3), 4)
        return MemoryAugmented(nn.Linear(7, 5), Recurrent(5, 3), input_size=4)


def test_what_was_read_reaches_the_controller_one_step_later() -> None:
    """Within a call as across calls: where peers feed the reads of the last call to a whole call."""
    torch.manual_seed(0)
    controller, memory = nn.Linear(3 + 2, 4), Recurrent(4, 2)
    network = MemoryAugmented(controller, memory, input_size=3)
    inputs = torch.randn(2, 5, 3)
    outputs, state = network(inputs)
    reads, remembered = torch.zeros(2, 2), memory.initial_state(2)
    for step, output in zip(inputs.unbind(1), outputs.unbind(1), strict=True):
        hidden = controller(torch.cat([step, reads], dim=1))
        reads, remembered = memory.step(memory.prepare(hidden), remembered)
        torch.testing.assert_close(output, torch.cat([hidden, reads], dim=1))
    torch.testing.assert_close(state.reads, reads)
    outputs.sum().backward()
    assert controller.weight.grad is not None
    assert controller.weight.grad[:, 3:].abs().sum() > 0


def test_the_first_output_knows_nothing_of_what_other_calls_left() -> None:
    """No state given means to begin afresh, whatever the generator of random numbers holds."""
    network = MemoryAugmented(Recurrent(5, 4), Recurrent(4, 2), 3).eval()
    inputs = torch.randn(2, 3, 3)
    first, _ = network(inputs)
    torch.manual_seed(9)
    assert torch.equal(network(inputs)[0], first)


@pytest.mark.parametrize(
    ("controller", "options", "message"),
    [
        (Recurrent(5, 3), {}, "memory must take what the controller gives: 4, 3"),
        (Recurrent(2, 4), {}, "controller must take inputs and the 2 numbers that memory answers, not 2"),
        (Recurrent(5, 4), {"input_size": 4}, "controller must take inputs .* not 5 with an input_size of 4"),
        (nn.Linear(5, 4), {}, "input_size must be given"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(controller, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryAugmented(controller, Recurrent(4, 2), **options)


def test_a_memory_that_works_in_place_does_so_within_a_network_and_gives_the_same() -> None:
    torch.manual_seed(0)
    network = MemoryAugmented(Recurrent(3 + 8, 6), SAM(6, slots=12, width=4, heads=2, top_k=2), 2)
    inputs, mask = torch.randn(2, 9, 3, requires_grad=True), torch.rand(2, 9) < 0.8
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 4] = True
    results = []
    for naive in (False, True):
        network.memory.naive = naive
        outputs, state = network(inputs, mask=mask, reset=reset)
        (slope,) = torch.autograd.grad(outputs.square().sum() + state.memory.memory.sum(), inputs)
        results.append((outputs, state.memory.memory, slope))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
