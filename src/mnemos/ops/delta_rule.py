"""The delta rule: an associative memory in one matrix, which corrects what it would have answered.

Schlag, Irie & Schmidhuber 2021, "Linear Transformers Are Secretly Fast Weight Programmers":

    W_t = W_{t-1} + β_t (v_t - W_{t-1} k_t) ⊗ k_t        and        y_t = W_t q_t

With a key of length one and β = 1 the old value under that key is replaced exactly; β = 0 changes nothing.
The loop is the specification. The chunked form gives the same values and gradients with a number of
operations that does not grow with the steps of a chunk.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def delta_rule_loop(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch time heads keys"],
    values: Float[Tensor, "batch time heads width"],
    strengths: Float[Tensor, "batch time heads"],
    weights: Float[Tensor, "batch heads width keys"],
    reset: Bool[Tensor, "batch time"] | None = None,
    *,
    read_first: bool = False,
) -> tuple[Float[Tensor, "batch time heads width"], Float[Tensor, "batch heads width keys"]]:
    """Reads and writes step by step: Schlag et al. 2021, section 4.2, keys taken as they are.

    Args:
        keys: not normalised here; a step is stable for strength times squared length in [0, 2].
        strengths: β; 0 makes the step the identity on the weights.
        weights: W_0, the fast weights before the first step.
        reset: true where the weights are zeroed before the step.
        read_first: reads W_{t-1} q_t, what was known before the step, in place of the paper's W_t q_t.

    Returns:
        What each query read, and the weights after the last step.
    """
    fresh = keys.new_zeros(keys.shape[:2], dtype=torch.bool) if reset is None else reset
    # Unbound once: a select per step would zero-fill the whole sequence in the backward of every step.
    steps = zip(*(x.unbind(1) for x in (queries, keys, values, strengths, fresh)), strict=True)
    outputs = []
    for query, key, value, strength, starts in steps:
        weights = weights.masked_fill(starts[:, None, None, None], 0)
        known = torch.einsum("bhwk,bhk->bhw", weights, query)
        error = value - torch.einsum("bhwk,bhk->bhw", weights, key)
        weights = weights + (strength.unsqueeze(-1) * error).unsqueeze(-1) * key.unsqueeze(-2)
        outputs.append(known if read_first else torch.einsum("bhwk,bhk->bhw", weights, query))
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(values), weights


def delta_rule_chunked(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch time heads keys"],
    values: Float[Tensor, "batch time heads width"],
    strengths: Float[Tensor, "batch time heads"],
    weights: Float[Tensor, "batch heads width keys"],
    reset: Bool[Tensor, "batch time"] | None = None,
    *,
    chunk_size: int = 32,
    read_first: bool = False,
) -> tuple[Float[Tensor, "batch time heads width"], Float[Tensor, "batch heads width keys"]]:
    """The same as `delta_rule_loop`, a chunk at a time: Yang et al. 2024, section 3 (WY form).

    What step i of a chunk writes is u_i = β_i (v_i - W_0 k_i - Σ_{j<i} u_j (k_j · k_i)). These are
    the rows of a unit lower triangular system, (I + A) U = β (V - K W_0ᵀ) with A_ij = β_i k_i · k_j below the
    diagonal. W_0 enters linearly, so all chunks are solved at once, before any W_0 is known.

    Args:
        chunk_size: steps solved together; any size, any length of time.
    """
    batch, time, heads = strengths.shape
    if time == 0:
        return torch.zeros_like(values), weights
    length = min(chunk_size, time)
    padding = -time % length  # steps of strength zero
    queries, keys, values, strengths = (
        _in_chunks(x, padding, length) for x in (queries, keys, values, strengths.unsqueeze(-1))
    )
    scores, reads = (keys @ keys.mT) * strengths, (queries @ keys.mT).tril(-1 if read_first else 0)
    seeing, leaving, ends = keys, keys, None
    if reset is not None:
        # Documents are numbered inside the chunk. Only the first sees W_0, only the last leaves something,
        # and a step sees the earlier steps of its own.
        fresh = functional.pad(reset, (0, padding)).unflatten(1, (-1, length))
        document = fresh.cumsum(2).repeat_interleave(heads, dim=0).unsqueeze(-1)
        last, first = document[:, :, -1:], document == 0
        scores, reads = (x * (document == document.mT) for x in (scores, reads))
        queries, seeing, leaving = queries * first, keys * first, keys * (document == last)
        ends = (last != 0).unbind(1)  # of what came before the chunk nothing is left
    identity = torch.eye(length, dtype=keys.dtype, device=keys.device).expand_as(scores)
    # `scores` is read below its diagonal only. One solve for the inverse serves values and keys.
    inverse = torch.linalg.solve_triangular(scores, identity, upper=False, unitriangular=True) * strengths.mT
    written, erased = inverse @ values, inverse @ seeing
    weights = weights.flatten(0, 1)
    before, updates = [], []
    for i, (u, w, k) in enumerate(zip(written.unbind(1), erased.unbind(1), leaving.unbind(1), strict=True)):
        before.append(weights)
        updates.append(torch.baddbmm(u, w, weights.mT, alpha=-1))
        kept = weights if ends is None else weights.masked_fill(ends[i], 0)
        weights = torch.baddbmm(kept, updates[-1].mT, k)
    outputs = queries @ torch.stack(before, dim=1).mT + reads @ torch.stack(updates, dim=1)
    outputs = outputs.flatten(1, 2)[:, :time].unflatten(0, (batch, heads)).transpose(1, 2)
    return outputs, weights.unflatten(0, (batch, heads))


def _in_chunks(x: Tensor, padding: int, length: int) -> Tensor:
    """(batch, time, heads, size) as (batch * heads, chunks, steps, size), padded with zeros."""
    x = x.transpose(1, 2).flatten(0, 1)
    x = functional.pad(x, (0, 0, 0, padding)) if padding else x
    return x.contiguous().unflatten(1, (-1, length))


def unit(x: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
    """Scales to length one; below a length of 1e-3 to less, so that zero stays zero with a small gradient."""
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-6).rsqrt()
