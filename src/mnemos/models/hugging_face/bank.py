"""The bounded bank of past keys and values that attention reads: first in, first out."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.tree import repeat_rows


class Bank(NamedTuple):
    """Keys and values without their positions. One row where all rows of a batch share it."""

    keys: Float[Tensor, "batch slots heads keys"]
    values: Float[Tensor, "batch slots heads width"]
    written: Int[Tensor, "batch slots"]  # how many writes the row had seen; -1 where a slot is empty


class Staged(NamedTuple):
    """What a forward pass would write."""

    keys: Float[Tensor, "batch time heads keys"]
    values: Float[Tensor, "batch time heads width"]
    real: Bool[Tensor, "batch time"]


class Found(NamedTuple):
    """What a bank answered."""

    values: Float[Tensor, "batch time heads width"]
    weights: Float[Tensor, "batch time heads found"]
    slots: Int[Tensor, "batch time heads found"]
    any: Bool[Tensor, " batch"]  # whether the row's bank held anything


def flat(staged: Staged) -> Staged:
    """All real steps of all rows as one row: what a shared bank is written."""
    keys, values = (x[staged.real].unsqueeze(0) for x in (staged.keys, staged.values))
    return Staged(keys, values, staged.real.new_ones(keys.shape[:2]))


def write(bank: Bank | None, staged: Staged, capacity: int) -> Bank:
    """The bank after a write: of each row, the last `capacity` real steps.

    Raises:
        ValueError: as many rows as the bank does not have.
    """
    keys, values, real = staged
    if bank is None:
        empty = real.new_zeros(len(real), 0, dtype=torch.int64)
        bank = Bank(keys[:, :0], values[:, :0], empty)
    if len(bank.written) != len(real):
        raise ValueError(
            f"the bank has {len(bank.written)} rows, {len(real)} are written: clear it before another batch"
        )
    seen = bank.written.new_full((len(real), 1), -1)  # so that an empty bank has a latest write, too
    clock = torch.cat([bank.written, seen], dim=1).amax(1, keepdim=True)
    written = torch.where(real, clock + real.cumsum(1), -1)
    whole = Bank(*(torch.cat(pair, dim=1) for pair in zip(bank, (keys, values, written), strict=True)))
    # Empty slots to the front, so that the last slots of every row are its newest records.
    kept = min(capacity, int((whole.written >= 0).sum(1).max())) if whole.written.numel() else 0
    order = (
        (whole.written >= 0).to(torch.int8).argsort(dim=1, stable=True)[:, whole.written.shape[1] - kept :]
    )
    rows = torch.arange(len(order), device=order.device).unsqueeze(1)
    return Bank(*(x[rows, order] for x in whole))


def for_rows(bank: Bank, batch: int) -> Bank:
    """The bank as `batch` rows see it: beams and samples of one prompt lie side by side and share its row.

    Raises:
        ValueError: if `batch` is no multiple of the bank's rows.
    """
    rows = len(bank.written)
    if batch % rows:
        raise ValueError(f"the bank has {rows} rows, inputs {batch}: clear it before another batch")
    return bank if rows in (1, batch) else repeat_rows(bank, batch // rows)


def read(
    bank: Bank,
    queries: Float[Tensor, "batch time query_heads keys"],
    scale: Float[Tensor, " query_heads"],
    top_k: int,
) -> Found:
    """The softmax over each query's `top_k` best records, exactly; gradients to queries and scale.

    Query heads are in groups that share a head of keys, as in grouped-query attention: head h reads that of
    h // (query_heads // heads). The keys are never repeated.
    """
    batch, time, query_heads, _ = queries.shape
    bank = for_rows(bank, batch)
    heads = bank.keys.shape[2]
    groups = query_heads // heads
    full = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        scaled = queries.to(full) * scale.to(full).unsqueeze(-1)
        asked = scaled.unflatten(2, (heads, groups)).permute(0, 2, 1, 3, 4).flatten(2, 3)
        scores = asked @ bank.keys.to(full).permute(0, 2, 3, 1)  # (batch, heads, time * groups, slots)
        held = bank.written >= 0
        scores = scores.masked_fill(~held[:, None, None], -torch.inf)
        best, slots = scores.topk(min(top_k, scores.shape[-1]), dim=-1)
        nothing = best[..., :1].isneginf()
        weights = best.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
        values = bank.values.to(full).transpose(1, 2).expand(batch, -1, -1, -1)
        index = slots.flatten(2).unsqueeze(-1).expand(-1, -1, -1, values.shape[-1])
        chosen = values.gather(2, index).unflatten(2, slots.shape[2:])
        answer = (weights.unsqueeze(-2) @ chosen).squeeze(-2)

    def by_query(x: Tensor) -> Tensor:
        return x.unflatten(2, (time, groups)).transpose(1, 2).flatten(2, 3)

    return Found(by_query(answer), by_query(weights), by_query(slots), held.any(1).expand(batch))


def read_naive(
    bank: Bank,
    queries: Float[Tensor, "batch time query_heads keys"],
    scale: Float[Tensor, " query_heads"],
    top_k: int,
) -> Float[Tensor, "batch time query_heads width"]:
    """The values of `read`, query by query: its specification."""
    bank = for_rows(bank, len(queries))
    groups = queries.shape[2] // bank.keys.shape[2]
    answers = []
    for row, asked in enumerate(queries):
        place = min(row, len(bank.written) - 1)
        held = bank.written[place] >= 0
        for head, factor in enumerate(scale):
            keys, values = (x[place, held, head // groups] for x in (bank.keys, bank.values))
            for query in asked[:, head]:
                scores, slots = (factor * keys @ query).topk(min(top_k, len(keys)))
                answers.append(scores.softmax(0) @ values[slots])
    return torch.stack(answers).view(len(queries), -1, queries.shape[1], answers[0].shape[0]).transpose(1, 2)
