"""What only `BaFastWeights` claims: the equations of its paper, and attention to its own past."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories import BaFastWeights


def test_one_step_is_the_papers() -> None:
    torch.manual_seed(0)
    memory = BaFastWeights(3, 5, settling=2, decay=0.9, rate=0.3)
    inputs = torch.randn(1, 4, 3)
    outputs, state = memory(inputs)
    hidden, weights = torch.zeros(5), torch.zeros(5, 5)
    for x, output in zip(inputs[0], outputs[0], strict=True):
        weights = 0.9 * weights + 0.3 * torch.outer(hidden, hidden)
        boundary = memory.recurrence.weight @ hidden + memory.input(x)
        hidden = boundary.relu()
        for _ in range(2):
            hidden = functional.layer_norm(boundary + weights @ hidden, (5,)).relu()
        torch.testing.assert_close(output, hidden)
    torch.testing.assert_close(state.weights[0], weights)


def test_the_matrix_attends_to_the_hidden_states_before() -> None:
    """A h = η Σ λ^(t-τ) h_τ (h_τ · h): eq. 6, attention without a softmax."""
    torch.manual_seed(0)
    memory = BaFastWeights(3, 5)
    with torch.no_grad():
        hiddens, state = memory(torch.randn(1, 6, 3))
    query, before = torch.randn(5), hiddens[0, :-1]
    ages = torch.arange(len(before)).flip(0)
    expected = ((0.5 * 0.95**ages * (before @ query)).unsqueeze(1) * before).sum(0)
    torch.testing.assert_close(state.weights[0] @ query, expected)


def test_without_settling_it_is_a_plain_recurrent_network() -> None:
    torch.manual_seed(0)
    memory = BaFastWeights(3, 5, settling=0)
    inputs = torch.randn(1, 4, 3)
    outputs, _ = memory(inputs)
    hidden = torch.zeros(5)
    for x, output in zip(inputs[0], outputs[0], strict=True):
        hidden = (memory.recurrence.weight @ hidden + memory.input(x)).relu()
        torch.testing.assert_close(output, hidden)


@pytest.mark.parametrize(
    ("given", "message"), [({"settling": -1}, "settling"), ({"decay": 1.5}, "decay"), ({"rate": 0.0}, "rate")]
)
def test_numbers_out_of_range_are_refused(given, message) -> None:
    with pytest.raises(ValueError, match=f"{message} must be"):
        BaFastWeights(3, 4, **given)
