"""Top-k activation: its limits, its continuity; the form for all steps against the loop."""

import math

import pytest
import torch
from torch.nn import functional

from mnemos.ops.top_k_counters import add_and_sum, add_and_sum_loop, top_k_activations


def test_the_nearest_are_active_and_of_length_one() -> None:
    torch.manual_seed(0)
    queries, addresses = torch.randn(6, 5, 8), torch.randn(40, 8)
    active = top_k_activations(queries, addresses, 7)
    cosines = functional.cosine_similarity(queries.unsqueeze(2), addresses, dim=-1)
    nearest = torch.zeros_like(active).scatter(2, cosines.topk(7).indices, 1.0)
    assert torch.equal(active > 0, nearest > 0)
    torch.testing.assert_close(active.norm(dim=-1), torch.ones(6, 5))
    assert torch.equal(active.argmax(-1), cosines.argmax(-1))
    lengths = torch.rand(6, 5, 1) * 9 + 0.1, torch.rand(40, 1) * 9 + 0.1
    longer = top_k_activations(queries * lengths[0], addresses * lengths[1], 7)
    torch.testing.assert_close(longer, active)  # lengths say nothing


def test_one_active_location_is_a_hard_choice_and_zero_activates_none() -> None:
    addresses = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(top_k_activations(addresses, addresses, 1), torch.eye(10))
    assert not top_k_activations(torch.zeros(2, 4), addresses, 3).any()


def test_activation_does_not_jump_where_the_nearest_change() -> None:
    addresses = torch.randn(50, 3, generator=torch.Generator().manual_seed(2)).double()
    angles = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)
    active = top_k_activations(circle, addresses, 4)
    sets = (active > 0).int()
    assert (sets.diff(dim=0) != 0).any(1).sum() > 20  # the active ones do change on the way
    steps = active.diff(dim=0).abs().amax(1)
    finer = top_k_activations(circle[::2], addresses, 4).diff(dim=0).abs().amax(1)
    assert finer.max() == pytest.approx(2 * steps.max().item(), rel=0.1)  # half as fine, twice the step


@pytest.mark.parametrize("sizes", [(1, 1, 2, 1), (2, 33, 7, 5), (3, 10, 4, 2)])
@pytest.mark.parametrize("chance", [0.0, 0.2])
def test_all_steps_together_are_the_loop(sizes: tuple[int, int, int, int], chance: float) -> None:
    batch, time, slots, width = sizes
    torch.manual_seed(time)
    parts = [
        torch.randn(batch, slots, width),
        torch.rand(batch, time, slots),
        torch.randn(batch, time, width),
        torch.rand(batch, time),
    ]
    parts = [part.double().requires_grad_() for part in parts]
    reset = torch.rand(batch, time) < chance
    found, expected = add_and_sum(*parts, reset), add_and_sum_loop(*parts, reset)
    torch.testing.assert_close(found, expected)
    probes = [torch.randn_like(part) for part in expected]
    slopes = [torch.autograd.grad(form, parts, probes) for form in (found, expected)]
    torch.testing.assert_close(*slopes)
