"""Every memory keeps every law on an accelerator, and computes there what it computes on the CPU."""

import copy
from functools import partial

import pytest
import torch

import mnemos
from mnemos.testing import MemorySuite, examples
from mnemos.testing.trial import past, random_inputs, random_steps, trial
from mnemos.tree import detach, map_tensors, tensors, to

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(params=examples())
def memory(request):
    torch.manual_seed(0)
    return examples()[request.param]().cuda()


class TestLawsOnGpu(MemorySuite):
    @pytest.fixture
    def memory(self, memory):
        return memory


def test_the_gpu_computes_what_the_cpu_does(memory):
    memory = memory.eval()
    alone = copy.deepcopy(memory).cpu()
    inputs, state = random_inputs(alone, 33), past(alone)
    flags = {"mask": random_steps(alone, 0.8, 33), "reset": random_steps(alone, 0.1, 33, seed=1)}
    there = {name: steps.cuda() for name, steps in flags.items()}
    expected = trial(alone, partial(alone, **flags), inputs, state)
    found = trial(memory, partial(memory, **there), inputs.cuda(), to(state, "cuda"))
    assert found.outputs.is_cuda
    torch.testing.assert_close(found.outputs.cpu(), expected.outputs, rtol=1e-4, atol=1e-4)
    for one, other in zip(tensors(found.state), tensors(expected.state), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-4)
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name].cpu(), gradient, rtol=1e-3, atol=1e-3)


def test_a_state_travels_between_devices_bit_for_bit(memory, tmp_path):
    state = detach(memory(random_inputs(memory))[1])
    mnemos.save(tmp_path / "state", memory, state)
    back = mnemos.load(tmp_path / "state", copy.deepcopy(memory).cpu())
    for one, other in zip(tensors(map_tensors(torch.Tensor.cpu, state)), tensors(back), strict=True):
        assert not other.is_cuda
        torch.testing.assert_close(other, one, rtol=0, atol=0, equal_nan=True)
