"""The few strongest links: those of whole matrices where none is cut, and the greatest where some are."""

import pytest
import torch

from mnemos.ops import linkage
from mnemos.ops.sparse_linkage import STEPS, UNIT, SparseLinks, followed, link_, links_after, merged


def no_links(slots=7, count=7, batch=1):
    numbers = torch.zeros(batch, slots, count, dtype=torch.int64)
    weights = numbers.int()
    return SparseLinks(numbers, weights, numbers, weights, numbers[:, 0], weights[:, 0])


def after_writing(*slots, **sizes):
    links = no_links(**sizes)
    for slot in slots:
        links = links_after(links, torch.tensor([[slot]]), torch.ones(1, 1))
    return links


def whole(slots, weights, size):
    """The matrix of rows of links (batch, slots, slots), or the vector of one row."""
    weights = weights if weights.is_floating_point() else weights.float() / UNIT
    return weights.new_zeros(*weights.shape[:-1], size).scatter_add(-1, slots, weights)


def matrices(links, size=7):
    pairs = (links[0:2], links[2:4], links[4:6])
    return tuple(whole(slots, weights, size) for slots, weights in pairs)


def test_three_writes_are_followed_forwards_and_backwards_exactly():
    links = after_writing(3, 0, 2)
    read = torch.tensor([[[3], [0], [2]]]), torch.ones(1, 3, 1)
    slots, weights = followed(links.later_slots, links.later_weights, *read)
    assert slots.flatten().tolist() == [0, 2, 0]
    assert weights.flatten().tolist() == [1, 1, 0]  # nothing came after the last
    slots, weights = followed(links.earlier_slots, links.earlier_weights, *read)
    assert slots.flatten().tolist() == [0, 3, 0]
    assert weights.flatten().tolist() == [0, 1, 1]  # and nothing before the first


def writes(steps, heads, slots=7, seed=0):
    """Slots, some of them twice, and weights that sum to at most one."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        weights = torch.rand(2, heads, generator=generator)
        weights = weights / (weights.sum(1, keepdim=True) + torch.rand(2, 1, generator=generator))
        yield torch.randint(slots, (2, heads), generator=generator), (STEPS * weights).floor() / STEPS


@pytest.mark.parametrize("heads", [1, 3, 9])
def test_where_nothing_is_cut_links_are_those_of_whole_matrices(heads):
    links, nothing = no_links(batch=2), torch.eye(7, dtype=torch.bool)
    earlier, later, last = torch.zeros(2, 7, 7), torch.zeros(2, 7, 7), torch.zeros(2, 7)
    for slots, weights in writes(30, heads):
        w = whole(slots, weights, 7)
        rows, columns = w.unsqueeze(2), w.unsqueeze(1)
        earlier = ((1 - rows) * earlier + rows * last.unsqueeze(1)).masked_fill(nothing, 0)
        later = ((1 - columns) * later + columns * last.unsqueeze(2)).masked_fill(nothing, 0)
        last = (1 - w.sum(1, keepdim=True)) * last + w
        links = links_after(links, slots, weights)
        torch.testing.assert_close(matrices(links), (earlier, later, last))


def test_slots_that_are_written_once_have_the_links_of_a_dnc():
    links, dense, last = no_links(), torch.zeros(1, 1, 7, 7), torch.zeros(1, 1, 7)
    for slot, weight in zip((4, 1, 6, 0, 3), (7 / 8, 1 / 4, 1.0, 5 / 8, 3 / 4), strict=True):
        w = torch.zeros(1, 1, 7)
        w[..., slot] = weight
        dense, last = linkage.links_after(dense, last, w), linkage.precedence_after(last, w)
        links = links_after(links, torch.tensor([[slot]]), torch.tensor([[weight]]))
        earlier, later, _ = matrices(links)
        torch.testing.assert_close(earlier, dense[:, 0])
        torch.testing.assert_close(later, dense[:, 0].mT)


def test_a_slot_that_is_written_again_has_another_before_it_and_is_not_after_the_old_one():
    earlier, later, last = matrices(after_writing(0, 1, 2, 0))
    assert earlier[0, 0].argmax() == 2
    assert later[0, 2].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert last[0].argmax() == 0
    assert earlier[0, 1, 0] == 1  # what followed its old word is still known to have done so


def test_a_row_keeps_its_greatest_links():
    links = no_links(count=2)
    for weight, slot in ((0.25, 1), (0.5, 2), (0.375, 3)):
        links = links_after(links, torch.tensor([[slot]]), torch.tensor([[weight]]))
    links = links_after(links, torch.tensor([[0]]), torch.ones(1, 1))
    assert links.earlier_slots[0, 0].tolist() == [3, 2]
    torch.testing.assert_close(links.earlier_weights[0, 0] / UNIT, torch.tensor([0.375, 0.3125]))


def test_several_writes_in_a_step_are_one_event():
    links = links_after(after_writing(5), torch.tensor([[1, 3, 1, 0]]), torch.tensor([[0.5, 1, 0.5, 0]]))
    earlier, _, last = matrices(links)
    torch.testing.assert_close(last, torch.tensor([[0, 0.5, 0, 0.5, 0, 0, 0]]))
    torch.testing.assert_close(earlier[0, [0, 1, 3], 5], torch.tensor([0, 0.5, 0.5]))


def test_in_place_it_is_the_same_and_what_is_not_known_stays():
    pure, worked = no_links(batch=2), SparseLinks(*(x.clone() for x in no_links(batch=2)))
    for step, (slots, weights) in enumerate(writes(20, 4)):
        known = torch.tensor([True, step % 3 > 0])
        before, kept = pure, [x.clone() for x in pure]
        pure = SparseLinks(
            *(
                torch.where(known.view(-1, *[1] * (new.dim() - 1)), new, old)
                for new, old in zip(links_after(pure, slots, weights), pure, strict=True)
            )
        )
        assert all(torch.equal(*pair) for pair in zip(before, kept, strict=True))
        worked = link_(worked, slots, weights, known)
        assert all(torch.equal(*pair) for pair in zip(pure, worked, strict=True))


def test_a_slot_that_stands_in_several_places_is_one():
    slots, weights = torch.tensor([4, 0, 4, 0, 2]), torch.tensor([0.2, 0.0, 0.3, 0.1, 0.0])
    found, total, places = merged(slots, weights, 3)
    assert found.tolist() == [4, 0, 0]
    torch.testing.assert_close(total, torch.tensor([0.5, 0.1, 0]))
    assert places[:2].tolist() == [0, 3]  # not where slot 0 has no weight


def test_the_weights_of_reads_have_a_gradient_and_links_have_none():
    links = after_writing(3, 0, 2)
    weights = torch.tensor([[[0.7, 0.2]]], requires_grad=True)
    slots, along = followed(links.later_slots, links.later_weights, torch.tensor([[[3, 0]]]), weights)
    assert slots.flatten().tolist() == [0, 2]
    (gradient,) = torch.autograd.grad(along.sum(), weights)
    assert gradient.flatten().tolist() == [1, 1]
    written = torch.ones(1, 1, requires_grad=True)
    assert not any(x.requires_grad for x in links_after(links, torch.tensor([[1]]), written))
