"""The gated delta rule: an associative memory in one matrix that forgets, and corrects what it would answer.

    S_t = S_{t-1} Diag(α_t) (I - e_t ⊗ k_t) + w_t ⊗ k_t        and        y_t = S_t q_t

One step keeps the share α_t of every column, takes away under the key k_t what the matrix answers to the
erasing key e_t, and writes w_t there. Every published form is a choice of its four gates:

| | decay α | erased e | written w |
|---|---|---|---|
| linear attention (Katharopoulos et al. 2020), fast weights (Schmidhuber 1992) | 1 | 0 | v |
| the delta rule (Schlag, Irie & Schmidhuber 2021; Yang et al. 2024) | 1 | β k | β v |
| gated delta rule (Yang, Kautz & Hatamizadeh 2025) | a number | β k | β v |
| Kimi delta attention (Kimi Team 2025) | one for each key channel | β k | β v |
| gated delta rule 2 (Hatamizadeh, Choi & Kautz 2026) | one for each key channel | b ⊙ k | w ⊙ v |

The loop is the specification. The chunked form gives the same values and gradients with a number of
operations that does not grow with the steps of a chunk.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

ANCHORED = 4  # steps that share a reference point where every channel decays at its own rate
LEAST_LOG_DECAY = -20.0  # a share of 2e-9, nothing beside float32's 6e-8; ANCHORED of them stay in its range


def delta_rule_loop(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch time heads keys"],
    written: Float[Tensor, "batch time heads width"],
    erased: Float[Tensor, "batch time heads keys"] | None,
    weights: Float[Tensor, "batch heads width keys"],
    *,
    log_decay: Float[Tensor, "batch time heads #keys"] | None = None,
    reset: Bool[Tensor, "batch time"] | None = None,
    read_first: bool = False,
) -> tuple[Float[Tensor, "batch time heads width"], Float[Tensor, "batch heads width keys"]]:
    """Reads and writes step by step, the keys taken as they are.

    Args:
        keys: k, not normalised here; with e = β k a step is stable for β |k|² in [0, 2].
        written: w, such as β v.
        erased: e, such as β k; zeros, with `written` of zeros, make the step the identity but for its decay.
            None erases nothing in any step.
        weights: S_0, before the first step.
        log_decay: log α, at most 0, for each head or for each channel of its keys; None is α = 1.
        reset: true where the weights are zeroed before the step.
        read_first: reads S_{t-1} q_t, what was known before the step, in place of S_t q_t.

    Returns:
        What each query read, and the weights after the last step.
    """
    fresh = keys.new_zeros(keys.shape[:2], dtype=torch.bool) if reset is None else reset
    erased = torch.zeros_like(keys) if erased is None else erased
    kept = torch.ones_like(keys[..., :1]) if log_decay is None else log_decay.exp()
    # Unbound once: a select per step would zero-fill the whole sequence in the backward of every step.
    steps = zip(*(x.unbind(1) for x in (queries, keys, written, erased, kept, fresh)), strict=True)
    outputs = []
    for query, key, writes, erases, keeps, starts in steps:
        weights = weights.masked_fill(starts[:, None, None, None], 0)
        known = torch.einsum("bhwk,bhk->bhw", weights, query)
        weights = weights * keeps.unsqueeze(-2)
        change = writes - torch.einsum("bhwk,bhk->bhw", weights, erases)
        weights = weights + change.unsqueeze(-1) * key.unsqueeze(-2)
        outputs.append(known if read_first else torch.einsum("bhwk,bhk->bhw", weights, query))
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(written), weights


def delta_rule_chunked(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch time heads keys"],
    written: Float[Tensor, "batch time heads width"],
    erased: Float[Tensor, "batch time heads keys"] | None,
    weights: Float[Tensor, "batch heads width keys"],
    *,
    log_decay: Float[Tensor, "batch time heads #keys"] | None = None,
    reset: Bool[Tensor, "batch time"] | None = None,
    chunk_size: int = 32,
    read_first: bool = False,
) -> tuple[Float[Tensor, "batch time heads width"], Float[Tensor, "batch heads width keys"]]:
    """The same as `delta_rule_loop`, a chunk at a time: Yang et al. 2024, section 3 (WY form).

    With G_i the sum of the logarithms of decay from the chunk's start to step i, what step i changes is
    u_i = w_i - S_0 (e_i ⊙ exp G_i) - Σ_{j<i} u_j A_ij, where A_ij = Σ_c e_ic k_jc exp(G_ic - G_jc). These are
    the rows of a unit lower triangular system. S_0 enters linearly, so all chunks are solved at once, before
    any S_0 is known. No factor is ever above 1: nothing is divided by a product of decays.

    Args:
        chunk_size: steps solved together; any size, any length of time. Where channels decay one by one, it
            is taken up to the next power of two, at least 4.
    """
    batch, time, heads = keys.shape[:3]
    if time == 0:
        return torch.zeros_like(written), weights
    length = min(chunk_size, time)
    if log_decay is not None and log_decay.shape[-1] > 1:  # halved until it is of ANCHORED
        length = ANCHORED * 2 ** max(0, math.ceil(math.log2(length / ANCHORED)))
    padding = -time % length  # steps that change nothing
    cut = partial(_in_chunks, padding=padding, length=length)
    written = cut(written)
    chunks = _relate(
        cut(queries),
        cut(keys),
        None if erased is None else cut(erased),
        None if log_decay is None else cut(log_decay),
        read_first,
    )
    if reset is not None:
        chunks = _part(chunks, functional.pad(reset, (0, padding)).unflatten(1, (-1, length)), heads)
    seeing = chunks.seeing
    if seeing is not None and chunks.scores is not None:
        identity = torch.eye(length, dtype=keys.dtype, device=keys.device).expand_as(chunks.scores)
        # `scores` is read below its diagonal only. One solve for the inverse serves both sides.
        inverse = torch.linalg.solve_triangular(chunks.scores, identity, upper=False, unitriangular=True)
        written, seeing = inverse @ written, inverse @ seeing
    count = written.shape[1]
    seen, kept = ([None] * count if x is None else x.unbind(1) for x in (seeing, chunks.kept))
    weights = weights.flatten(0, 1)
    before, changes = [], []
    for change, key, sees, keeps in zip(written.unbind(1), chunks.leaving.unbind(1), seen, kept, strict=True):
        before.append(weights)
        changes.append(change if sees is None else torch.baddbmm(change, sees, weights.mT, alpha=-1))
        weights = torch.baddbmm(weights if keeps is None else weights * keeps, changes[-1].mT, key)
    outputs = chunks.asking @ torch.stack(before, dim=1).mT + chunks.reads @ torch.stack(changes, dim=1)
    outputs = outputs.flatten(1, 2)[:, :time].unflatten(0, (batch, heads)).transpose(1, 2)
    return outputs, weights.unflatten(0, (batch, heads))


class _Chunks(NamedTuple):
    """How the steps of each chunk bear on one another and on the matrix; rows are those of all heads."""

    asking: Float[Tensor, "rows chunks steps keys"]  # what a step's query is to S_0
    reads: Float[Tensor, "rows chunks steps steps"]  # what it reads of the chunk's own changes
    seeing: Float[Tensor, "rows chunks steps keys"] | None  # e to S_0; None where nothing is erased
    scores: Float[Tensor, "rows chunks steps steps"] | None  # A
    leaving: Float[Tensor, "rows chunks steps keys"]  # what is left of a key at the chunk's end
    kept: Float[Tensor, "rows chunks 1 #keys"] | None  # what is left of S_0 there; None for all of it


def _relate(
    queries: Tensor, keys: Tensor, erased: Tensor | None, log_decay: Tensor | None, read_first: bool
) -> _Chunks:
    last = -1 if read_first else 0  # the last of its own chunk that a step reads, before itself
    if log_decay is None:
        scores = None if erased is None else erased @ keys.mT
        return _Chunks(queries, (queries @ keys.mT).tril(last), erased, scores, keys, None)
    between = _between if log_decay.shape[-1] == 1 else _between_by_channel
    total = log_decay.clamp_min(LEAST_LOG_DECAY).cumsum(2)  # G
    reading = functional.pad(total[:, :, :-1], (0, 0, 1, 0)) if read_first else total
    end = total[:, :, -1:]
    asking, leaving = queries * reading.exp(), keys * (end - total).exp()
    if erased is None:
        (reads,) = between(queries.unsqueeze(0), keys, reading.unsqueeze(0), total).unbind(0)
        return _Chunks(asking, reads.tril(last), None, None, leaving, end.exp())
    sides = torch.stack([queries, erased]), keys, torch.stack([reading, total]), total
    reads, scores = between(*sides).unbind(0)
    return _Chunks(asking, reads.tril(last), erased * total.exp(), scores, leaving, end.exp())


def _between(rows: Tensor, keys: Tensor, at: Tensor, total: Tensor) -> Tensor:
    """Σ_c rows_ic keys_jc exp(at_i - total_j); above the diagonal anything finite."""
    return (rows @ keys.mT) * (at - total.mT).clamp_max(0).exp()


def _between_by_channel(
    rows: Float[Tensor, "sides *chunks steps keys"],
    keys: Float[Tensor, "*chunks steps keys"],
    at: Float[Tensor, "sides *chunks steps keys"],
    total: Float[Tensor, "*chunks steps keys"],
) -> Float[Tensor, "sides *chunks steps steps"]:
    """Σ_c rows_ic keys_jc exp(at_ic - total_jc); above the diagonal anything finite.

    No product of matrices has a decay for each pair and channel. But what the second half of a chunk sees of
    the first has all passed the boundary between them, exp(at_i - boundary) exp(boundary - total_j), and no
    factor is above 1. So it goes on within the halves, until few steps are left, which refer to one in their
    middle and stay in float32's range.
    """
    steps = keys.shape[-2]
    if steps == ANCHORED:
        anchor = total[..., ANCHORED // 2, None, :]
        return (rows * (at - anchor).exp()) @ (keys * (anchor - total).exp()).mT
    rows, keys, at, total = (x.unflatten(-2, (2, -1)) for x in (rows, keys, at, total))
    first, second = _between_by_channel(rows, keys, at, total).unbind(-3)
    (early_keys, _), (early_total, _) = keys.unbind(-3), total.unbind(-3)
    (_, late_rows), (_, late_at) = rows.unbind(-3), at.unbind(-3)
    boundary = early_total[..., -1:, :]
    across = (late_rows * (late_at - boundary).exp()) @ (early_keys * (boundary - early_total).exp()).mT
    above = functional.pad(first, (0, steps // 2))
    return torch.cat([above, torch.cat([across, second], dim=-1)], dim=-2)


def _part(chunks: _Chunks, fresh: Bool[Tensor, "batch chunks steps"], heads: int) -> _Chunks:
    """Parts the documents of a chunk.

    Only the first sees S_0, only the last leaves something, and a step sees the earlier steps of its own.
    """
    document = fresh.cumsum(2).repeat_interleave(heads, dim=0).unsqueeze(-1)
    first, last, same = document == 0, document[:, :, -1:], document == document.mT
    still = (last == 0).to(chunks.leaving)  # nothing of what came before, where a document began
    return _Chunks(
        chunks.asking * first,
        chunks.reads * same,
        None if chunks.seeing is None else chunks.seeing * first,
        None if chunks.scores is None else chunks.scores * same,
        chunks.leaving * (document == last),
        still if chunks.kept is None else chunks.kept * still,
    )


def _in_chunks(x: Tensor, padding: int, length: int) -> Tensor:
    """(batch, time, heads, size) as (batch * heads, chunks, steps, size), padded with zeros."""
    x = x.transpose(1, 2).flatten(0, 1)
    x = functional.pad(x, (0, 0, 0, padding)) if padding else x
    return x.contiguous().unflatten(1, (-1, length))


def unit(x: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
    """Scales to length one; below a length of 1e-3 to less, so that zero stays zero with a small gradient."""
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-6).rsqrt()
