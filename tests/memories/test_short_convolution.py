"""What only `ShortConvolution` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories import ShortConvolution


@pytest.fixture
def memory() -> ShortConvolution:
    torch.manual_seed(0)
    memory = ShortConvolution(5, kernel_size=3)
    torch.nn.init.normal_(memory.bias)
    return memory


def test_it_is_torchs_causal_depthwise_convolution(memory: ShortConvolution) -> None:
    inputs = torch.randn(2, 11, 5)
    padded = functional.pad(inputs.mT, (2, 0))
    expected = functional.conv1d(padded, memory.taps.flip(0).mT.unsqueeze(1), memory.bias, groups=5).mT
    torch.testing.assert_close(memory(inputs)[0], expected)


def test_a_step_sees_so_many_steps_and_none_to_come(memory: ShortConvolution) -> None:
    inputs = torch.randn(1, 8, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(memory(inputs)[0][0, 5].sum(), inputs)
    assert gradient[0].any(1).tolist() == [False, False, False, True, True, True, False, False]


def test_padding_takes_no_room(memory: ShortConvolution) -> None:
    inputs, real = torch.randn(1, 7, 5), torch.tensor([[1, 1, 0, 0, 0, 1, 1]]).bool()
    outputs, state = memory(inputs, mask=real)
    expected, after = memory(inputs[real].unsqueeze(0))
    torch.testing.assert_close(outputs[real].unsqueeze(0), expected)
    torch.testing.assert_close(state, after)


def test_one_tap_is_a_scale(memory: ShortConvolution) -> None:
    single, inputs = ShortConvolution(5, kernel_size=1), torch.randn(2, 4, 5)
    torch.testing.assert_close(single(inputs)[0], inputs * single.taps)


def test_half_precision_outside_leaves_it_in_its_own(memory: ShortConvolution) -> None:
    inputs = torch.randn(2, 4, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = memory(inputs)
    assert outputs.dtype == state.inputs.dtype == torch.float32
    torch.testing.assert_close(outputs, memory(inputs.float())[0])


@pytest.mark.parametrize("name", ["input_size", "kernel_size"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        ShortConvolution(**{"input_size": 3, name: 0})
