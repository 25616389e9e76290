"""What only `S4D` and `SelectiveStateSpace` claim; the laws that they share with all are in the suite."""

import pytest
import torch

from mnemos.memories import S4D, SelectiveStateSpace


def test_the_same_input_later_is_the_same_answer_later() -> None:
    torch.manual_seed(0)
    memory, inputs = S4D(3, 8), torch.randn(1, 30, 3)
    late = torch.cat([torch.zeros(1, 12, 3), inputs], dim=1)
    torch.testing.assert_close(memory(late)[0][:, 12:], memory(inputs)[0], atol=1e-5, rtol=1e-5)
    both = memory(inputs + 2 * inputs.flip(1))[0]
    torch.testing.assert_close(both, memory(inputs)[0] + 2 * memory(inputs.flip(1))[0], atol=1e-4, rtol=1e-4)


def test_convolution_is_recurrence_over_a_long_stretch() -> None:
    torch.manual_seed(0)
    memory, inputs = S4D(4, 16), torch.randn(2, 2000, 4)
    outputs, state = memory(inputs)
    memory.naive = True
    stepped, last = memory(inputs)
    torch.testing.assert_close(outputs, stepped, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, last, atol=1e-4, rtol=1e-4)


def test_channels_do_not_mix() -> None:
    inputs = torch.randn(1, 9, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(S4D(4, 6)(inputs)[0][0, -1, 2], inputs)
    assert gradient[0].any(0).tolist() == [False, False, True, False]


def test_a_step_size_of_zero_passes_an_input_over() -> None:
    torch.manual_seed(0)
    memory, inputs = SelectiveStateSpace(3, 4), torch.randn(2, 6, 3)
    _, before = memory(inputs)
    torch.nn.init.constant_(memory.step.bias, -1e4)
    _, after = memory(torch.randn(2, 5, 3), before)
    torch.testing.assert_close(after, before)


def test_a_long_step_lets_go_of_the_past() -> None:
    torch.manual_seed(0)
    memory, inputs = SelectiveStateSpace(3, 4), torch.randn(2, 6, 3)
    torch.nn.init.constant_(memory.step.bias, 1e3)
    other = torch.cat([torch.randn(2, 5, 3), inputs[:, 5:]], dim=1)
    torch.testing.assert_close(memory(other)[1], memory(inputs)[1])


def test_steps_begin_in_their_range() -> None:
    memory = SelectiveStateSpace(200, 2, step_range=(0.01, 0.2))
    steps = torch.nn.functional.softplus(memory.step.bias)
    assert 0.0099 < steps.min() < 0.02
    assert 0.15 < steps.max() < 0.201
    steps = S4D(200, 2, step_range=(0.01, 0.2)).log_steps.exp()
    assert 0.0099 < steps.min() < 0.02
    assert 0.15 < steps.max() < 0.201


@pytest.mark.parametrize("kind", [S4D, SelectiveStateSpace])
def test_states_stay_in_float32(kind: type) -> None:
    torch.manual_seed(0)
    memory, inputs = kind(4, 6), torch.randn(2, 9, 4)
    exact, expected = memory(inputs)
    outputs, state = memory.to(torch.bfloat16)(inputs.bfloat16())
    assert outputs.dtype == torch.bfloat16
    assert state.states.dtype == torch.float32
    torch.testing.assert_close(outputs.float(), exact, atol=0.1, rtol=0.1)
    torch.testing.assert_close(state, expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: S4D(2, 3), "state_size must be even, not 3"),
        (lambda: S4D(2, 0), "state_size must be at least 1, not 0"),
        (lambda: S4D(2, 4, step_range=(0.1, 0.01)), "step_range must be"),
        (lambda: SelectiveStateSpace(2, 0), "state_size must be at least 1, not 0"),
        (lambda: SelectiveStateSpace(2, 2, 0), "step_rank must be at least 1, not 0"),
        (lambda: SelectiveStateSpace(2, step_range=(0.0, 1.0)), "step_range must be"),
    ],
)
def test_arguments_are_checked(make, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()
