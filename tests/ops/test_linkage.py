"""The order of writing: recovered exactly, and kept by what writes nothing; by hand and by autograd."""

import pytest
import torch
from torch.nn import functional

from mnemos.ops import few_rows
from mnemos.ops.linkage import followed, linked, linked_naive, links_after, precedence_after, sharpened


def one_hot(*slots, count=5):
    return functional.one_hot(torch.tensor(slots), count).float().view(1, len(slots), count)


def after_writing(*slots, count=5):
    links, precedence = torch.zeros(1, 1, count, count), torch.zeros(1, 1, count)
    for slot in slots:
        weights = one_hot(slot, count=count)
        links, precedence = links_after(links, precedence, weights), precedence_after(precedence, weights)
    return links, precedence


def test_three_writes_are_followed_forwards_and_backwards_exactly() -> None:
    links, precedence = after_writing(3, 0, 2)
    assert torch.equal(precedence, one_hot(2))
    forwards, backwards = followed(links, one_hot(3, 0, 2))
    assert torch.equal(forwards[:, 0, :2], one_hot(0, 2))
    assert not forwards[:, 0, 2].any()  # nothing came after the last
    assert torch.equal(backwards[:, 0, 1:], one_hot(3, 0))
    assert not backwards[:, 0, 0].any()  # and nothing before the first


def test_a_slot_that_is_written_again_has_a_new_place_in_the_order() -> None:
    links, _ = after_writing(0, 1, 2, 0)
    forwards, backwards = followed(links, one_hot(2, 0))
    assert torch.equal(forwards[:, 0, 0], one_hot(0)[0])
    assert torch.equal(backwards[:, 0, 1], one_hot(2)[0])
    assert not followed(links, one_hot(0))[0].any()


def test_no_slot_follows_itself_and_no_write_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    links, precedence = torch.rand(2, 1, 4, 4, generator=generator), torch.rand(2, 1, 4, generator=generator)
    links = links_after(links, precedence, torch.rand(2, 1, 4, generator=generator) / 4)
    assert not links.diagonal(dim1=-2, dim2=-1).any()
    nothing = torch.zeros(2, 1, 4)
    assert torch.equal(links_after(links, precedence, nothing), links)
    assert torch.equal(precedence_after(precedence, nothing), precedence)


def problem(batch, heads, readers, slots, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def weights(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return (
        weights(batch, heads, slots, slots),
        weights(batch, heads, slots),
        weights(batch, heads, slots),
        weights(batch, readers, slots),
    )


@pytest.mark.parametrize("held", [1, 2**17])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 2, 5), (2, 3, 2, 7)])
def test_the_hand_written_form_is_the_plain_one(shape, held, monkeypatch) -> None:
    monkeypatch.setattr(few_rows, "HELD", held)  # all at once, and row by row
    given = problem(*shape)
    ours, naive = linked(*given), linked_naive(*given)
    torch.testing.assert_close(ours, naive)
    generator = torch.Generator().manual_seed(1)
    probes = [torch.randn(x.shape, dtype=torch.float64, generator=generator) for x in naive]
    found, expected = (torch.autograd.grad(outcome, given, probes) for outcome in (ours, naive))
    torch.testing.assert_close(found, expected)


def test_the_backward_keeps_one_matrix_a_step() -> None:
    kept: list[int] = []

    def note(tensor):
        if tensor.numel() >= 64 * 64 and tensor.data_ptr() not in kept:
            kept.append(tensor.data_ptr())
        return tensor

    links, precedence, written, read = problem(1, 1, 2, 64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for _ in range(5):
            links, _, _ = linked(links, precedence, written, read)
    assert len(kept) == 6  # five steps, and the links before them


def test_sharpness_is_the_identity_at_one_and_one_hot_in_the_end() -> None:
    weights = torch.tensor([[0.1, 0.4, 0.2], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(sharpened(weights, torch.ones(2)), weights, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        sharpened(weights, torch.full((2,), 2.0))[0], 0.7 * weights[0] ** 2 / 0.21, rtol=1e-4, atol=0
    )
    sharp = sharpened(weights, torch.full((2,), 1e4))
    torch.testing.assert_close(sharp[0], 0.7 * one_hot(1, count=3)[0, 0].double())
    assert not sharp[1].any()
