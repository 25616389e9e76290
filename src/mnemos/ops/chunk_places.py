"""Where in its chunk each step of each row stands, when chunks are part of a definition.

A chunk is `chunk_size` real steps of one document. Masked steps take no room, a reset begins a new chunk, and
rows may stand at different places in theirs. The steps of a piece are therefore moved into a grid of chunks
and columns, row by row, and what was computed there is moved back.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


class ChunkPlaces(NamedTuple):
    """A grid for one piece. The first chunk goes on with the one that the row was in; its columns hold only
    the new steps, from 0. The lists say in plain booleans what no row needs, so that it need not be computed.
    """

    sources: Int[Tensor, "cells"]  # the step, counted through all rows, of each cell; batch x time where none
    cells: Int[Tensor, "steps"]  # the cell of each step; 0 for a masked one
    real: Bool[Tensor, "chunks batch columns"]  # which cells hold a step
    full: Bool[Tensor, "chunks batch"]  # the chunk is complete
    fresh: Bool[Tensor, "chunks batch"]  # the chunk begins a document
    last: Int[Tensor, "batch"]  # the chunk in which the row's last real step stands
    position: Int[Tensor, "batch"]  # how many steps of an incomplete chunk the row ends with
    ended: Bool[Tensor, "batch"]  # a reset came after the row's last real step
    any_full: list[bool]
    any_fresh: list[bool]


def chunk_places(
    real: Bool[Tensor, "batch time"],
    fresh: Bool[Tensor, "batch time"] | None,
    position: Int[Tensor, "batch"],
    chunk_size: int,
) -> ChunkPlaces:
    """Places the steps of a piece of at least one step.

    Args:
        fresh: true where a document begins, before the step; None where nowhere.
        position: how many steps each row's present chunk already has, below `chunk_size`.
    """
    batch, time = real.shape
    columns = min(chunk_size, time)
    most = (chunk_size + time - 2) // chunk_size + 1 if fresh is None else time + 1
    fresh = torch.zeros_like(real) if fresh is None else fresh
    document = fresh.cumsum(1)
    before = real.cumsum(1) - real.long()  # real steps of the row before this one
    begun = torch.where(fresh, before, 0).cummax(1).values
    rank = before - torch.where(document == 0, -position.unsqueeze(1), begun)  # in the document
    begins = real & (rank % chunk_size == 0) & ((document > 0) | (rank > 0))
    chunk = begins.cumsum(1)
    held = position.unsqueeze(1).where(chunk == 0, 0)
    last = chunk[:, -1]
    # How many chunks there are is known only by looking, which a compiled graph cannot.
    known = not torch.compiler.is_compiling()
    chunks = int(last.max()) + 1 if known else most
    rows = torch.arange(batch, device=real.device).unsqueeze(1)
    cell = (chunk * batch + rows) * columns + rank % chunk_size - held
    nowhere = chunks * batch * columns
    sources = torch.full((nowhere + 1,), batch * time, device=real.device)
    steps = torch.arange(batch * time, device=real.device)
    sources = sources.scatter(0, cell.where(real, nowhere).flatten(), steps)[:-1]
    filled = (sources < batch * time).view(chunks, batch, columns)
    count = filled.sum(2)
    count = torch.cat([count[:1] + position, count[1:]])
    starts = (chunk * batch + rows).where(begins & (rank == 0), chunks * batch).flatten()
    first = real.new_zeros(chunks * batch + 1).index_fill(0, starts, True)[:-1].view(chunks, batch)
    full = count == chunk_size
    left = count.gather(0, last.unsqueeze(0)).squeeze(0)
    ended = (fresh & (before == real.sum(1, keepdim=True))).any(1)
    return ChunkPlaces(
        sources,
        cell.where(real, 0).flatten(),
        filled,
        full,
        first,
        last,
        torch.where(ended | (left == chunk_size), 0, left),
        ended,
        full.any(1).tolist() if known else [True] * chunks,
        first.any(1).tolist() if known else [True] * chunks,
    )


def into_chunks(
    x: Float[Tensor, "batch time heads width"], places: ChunkPlaces
) -> Float[Tensor, "chunks batch heads columns width"]:
    """What belongs to the steps, chunk by chunk; zeros where no step is."""
    steps = functional.pad(x.flatten(0, 1).flatten(1), (0, 0, 0, 1))
    chosen = steps.index_select(0, places.sources).unflatten(0, places.real.shape)
    return chosen.unflatten(3, x.shape[2:]).transpose(2, 3)


def out_of_chunks(
    x: Float[Tensor, "chunks batch heads columns width"], places: ChunkPlaces
) -> Float[Tensor, "batch time heads width"]:
    """The reverse of `into_chunks`; at masked steps it holds anything."""
    chosen = x.transpose(2, 3).flatten(0, 2).index_select(0, places.cells)
    return chosen.unflatten(0, (x.shape[1], -1))


def spans(places: ChunkPlaces, most: int) -> list[tuple[int, int]]:
    """The chunks in stretches, from and to before, of at most so many; only a first one begins a document."""
    found, start = [], 0
    for number in range(1, len(places.any_fresh) + 1):
        if number == len(places.any_fresh) or places.any_fresh[number] or number - start == most:
            found.append((start, number))
            start = number
    return found
