"""Where steps stand in their chunks, against counting."""

import pytest
import torch

from mnemos.ops.chunk_places import chunk_places, into_chunks, out_of_chunks, spans


def counted(real, fresh, position, size):
    """(chunk, column) of every real step of one row by counting, and what the row ends with."""
    chunk, column, held, begins, found = 0, 0, position, False, {}
    for step in range(len(real)):
        if fresh[step]:
            held, begins = 0, True
        if real[step]:
            if begins or held == size:
                chunk, column, held, begins = chunk + 1, 0, 0, False
            found[step] = (chunk, column)
            column, held = column + 1, held + 1
    return found, 0 if begins else held % size


@pytest.mark.parametrize("size", [1, 3, 4, 20])
@pytest.mark.parametrize("resets", [False, True])
def test_steps_stand_where_counting_puts_them(size: int, resets: bool) -> None:
    generator = torch.Generator().manual_seed(size)
    real = torch.rand(6, 13, generator=generator) < 0.8
    real[4] = False
    fresh = torch.rand(6, 13, generator=generator) < 0.2
    position = torch.arange(6) % size
    places = chunk_places(real, fresh if resets else None, position, size)
    columns = min(size, 13)
    for row in range(6):
        starts = fresh[row].tolist() if resets else [False] * 13
        found, ends_with = counted(real[row].tolist(), starts, int(position[row]), size)
        for step, (chunk, column) in found.items():
            cell = (chunk * 6 + row) * columns + column
            assert places.cells[row * 13 + step] == cell
            assert places.sources[cell] == row * 13 + step
        assert places.position[row] == ends_with
        assert places.real[:, row].sum() == len(found)


def test_what_was_moved_into_chunks_is_moved_back() -> None:
    real = torch.tensor([[True, False, True, True, True], [True] * 5])
    places = chunk_places(real, None, torch.tensor([1, 0]), 2)
    x = torch.randn(2, 5, 3, 4)
    arranged = into_chunks(x, places)
    assert arranged.shape[1:] == (2, 3, 2, 4)
    back = out_of_chunks(arranged, places)
    assert torch.equal(back[real], x[real])
    assert not arranged.transpose(2, 3)[~places.real].any()


def test_only_the_first_chunk_of_a_span_begins_a_document() -> None:
    fresh = torch.zeros(1, 12, dtype=torch.bool)
    fresh[0, 5] = True
    places = chunk_places(torch.ones_like(fresh), fresh, torch.tensor([0]), 2)
    assert spans(places, 2) == [(0, 2), (2, 3), (3, 5), (5, 7)]
    assert [places.any_fresh[start] for start, _ in spans(places, 2)] == [False, False, True, False]
