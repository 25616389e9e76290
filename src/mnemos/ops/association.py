"""The linear associator's ways to write a pair (k, v) into a matrix W that answers q with W q.

Hebb's rule adds v ⊗ k (Kohonen 1972; Anderson 1972): exact for orthonormal keys, cross-talk for all others.
The pseudo-inverse V K⁺ (Kohonen & Ruohonen 1973) is exact for linearly independent keys, and the least
squares solution beyond. It is written here pair by pair: Greville 1960, with the account of the keys that
Albert & Sittler 1966 keep, so that no pair is ever needed again. The delta rule, between the two, is in
`ops.delta_rule`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# A key whose part outside the span of the keys before it is shorter than this has no such part: what is left
# of it is rounding, of the caller's float32 as a rule, and a gain of 1 / length would make it the memory.
SHORTEST = 1e-5


def hebbian(
    queries: Float[Tensor, "batch time keys"],
    keys: Float[Tensor, "batch time keys"],
    values: Float[Tensor, "batch time width"],
    strengths: Float[Tensor, "batch time"],
    weights: Float[Tensor, "batch width keys"],
    reset: Bool[Tensor, "batch time"] | None = None,
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch width keys"]]:
    """Reads W_{t-1} q_t, then adds s_t v_t ⊗ k_t, a chunk of steps at a time.

    What a query reads is (q · k_j) s_j v_j summed over the earlier steps j of its chunk and its document,
    and what W held before the chunk.

    Args:
        strengths: s, a factor; 0 makes the step the identity on the weights.
        reset: true where the weights are zeroed before the step.
        chunk_size: steps computed together. A matter of speed only.
    """
    if not keys.shape[1]:
        return torch.zeros_like(values), weights
    fresh = keys.new_zeros(keys.shape[:2], dtype=torch.bool) if reset is None else reset
    parts = (queries, keys, values * strengths.unsqueeze(2), fresh)
    outputs = []
    for query, key, written, starts in zip(*(x.split(chunk_size, 1) for x in parts), strict=True):
        document = starts.cumsum(1)  # only the first sees W, only the last leaves something
        same = (document.unsqueeze(2) == document.unsqueeze(1)).tril(-1)
        inside = ((query @ key.mT) * same) @ written
        before = query.masked_fill((document != 0).unsqueeze(2), 0) @ weights.mT
        outputs.append(before + inside)
        left = written.masked_fill((document != document[:, -1:]).unsqueeze(2), 0)
        weights = weights.masked_fill((document[:, -1:] != 0).unsqueeze(2), 0) + left.mT @ key
    return torch.cat(outputs, dim=1), weights


def pseudo_inverse_step(
    weights: Float[Tensor, "batch width keys"],
    complement: Float[Tensor, "batch keys keys"],
    inverse: Float[Tensor, "batch keys keys"],
    key: Float[Tensor, "batch keys"],
    value: Float[Tensor, "batch width"],
) -> tuple[
    Float[Tensor, "batch width keys"], Float[Tensor, "batch keys keys"], Float[Tensor, "batch keys keys"]
]:
    """One more pair: from W = V K⁺, I - K K⁺ and (K Kᵀ)⁺ to those with (key, value) as one more column.

    A key that is linearly independent of those before it gets its value exactly, and no other answer changes
    (Greville 1960). One that is not moves all answers to the least squares solution (recursive least squares,
    with no forgetting): the same key written twice answers the mean of its two values.

    Args:
        weights: W = V K⁺; zero before the first pair.
        complement: I - K K⁺, the projection onto what no key has touched; the identity before the first pair.
        inverse: (K Kᵀ)⁺; zero before the first pair.
        key: of length one at most, so that `SHORTEST` means the same for all.
    """
    new = torch.einsum("bij,bj->bi", complement, key)  # c, the part of the key outside the span
    known = torch.einsum("bij,bj->bi", inverse, key)  # h
    square, spread = new.square().sum(1, keepdim=True), 1 + (known * key).sum(1, keepdim=True)
    independent = square > SHORTEST**2
    direction = new / torch.where(independent, square, 1)
    gain = torch.where(independent, direction, known / spread)
    error = value - torch.einsum("bwk,bk->bw", weights, key)
    weights = weights + error.unsqueeze(2) * gain.unsqueeze(1)
    grown = spread.unsqueeze(2) * _outer(gain, gain) - _outer(gain, known) - _outer(known, gain)
    shrunk = -_outer(gain, known)
    inverse = inverse + torch.where(independent.unsqueeze(2), grown, shrunk)
    taken = torch.where(independent.unsqueeze(2), _outer(direction, new), 0)
    return weights, complement - taken, inverse


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(2) * right.unsqueeze(1)
