"""Attention by content and by distance over a sliding window.

Dai et al. 2019, "Transformer-XL", section 3.3: the score between step i and an earlier step j is

    (q_i + u) · k_j + (q_i + v) · r_{i-j}

where r_d is what the layer made of the sinusoids of the distance d. Nothing depends on absolute
positions, so a window can be carried from one stretch of time to the next. The naive form gathers r for
every pair; the fast form multiplies every query with every r once and shifts the rows into place, block
by block.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

# Below this many steps a block costs more in calls than it saves in scores that nobody asks for.
SMALLEST_BLOCK = 32


def sinusoids(count: int, width: int) -> Float[Tensor, "{count} {width}"]:
    """R: sines and cosines of the distances 0 to count - 1, interleaved (Vaswani et al. 2017, 3.5)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(count).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def relative_attention_naive(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch seen heads keys"],
    values: Float[Tensor, "batch seen heads width"],
    distances: Float[Tensor, "reach heads keys"],
    content_bias: Float[Tensor, "heads keys"],
    position_bias: Float[Tensor, "heads keys"],
    document: Int[Tensor, "batch seen"],
) -> Float[Tensor, "batch time heads width"]:
    """What each step sees of itself and of the `reach - 1` steps before it: Dai et al. 2019, section 3.3.

    Args:
        queries: of the last `time` of the steps seen.
        keys: of all steps seen: those before the first query, then those of the queries.
        distances: r_d for the distances d = 0 to reach - 1.
        content_bias: u.
        position_bias: v.
        document: a number for the document that a step belongs to, at least 0; steps see their own
            document only. Negative where there is no step; a query there reads zeros.
    """
    seen, time, reach = keys.shape[1], queries.shape[1], distances.shape[0]
    steps = torch.arange(seen, device=keys.device)
    distance = steps[seen - time :, None] - steps
    positions = distances[distance.clamp(0, reach - 1)]
    scores = torch.einsum("bthk,bshk->bhts", queries + content_bias, keys)
    scores = scores + torch.einsum("bthk,tshk->bhts", queries + position_bias, positions)
    near = (distance >= 0) & (distance < reach)
    visible = near & (document[:, seen - time :, None] == document[:, None]) & (document[:, None] >= 0)
    weights = masked_softmax(scores * keys.shape[-1] ** -0.5, visible.unsqueeze(1))
    outputs = torch.einsum("bhts,bshw->bthw", weights, values)
    return torch.where((document[:, seen - time :] >= 0)[:, :, None, None], outputs, 0)


def relative_attention(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch seen heads keys"],
    values: Float[Tensor, "batch seen heads width"],
    distances: Float[Tensor, "reach heads keys"],
    content_bias: Float[Tensor, "heads keys"],
    position_bias: Float[Tensor, "heads keys"],
    document: Int[Tensor, "batch seen"],
) -> Float[Tensor, "batch time heads width"]:
    """The same as `relative_attention_naive`, at a cost of time x reach.

    Args:
        keys: of exactly reach - 1 steps before the first query, and of the queries' own.
    """
    time, window = queries.shape[1], distances.shape[0] - 1
    if keys.shape[1] != window + time:
        raise ValueError(
            f"keys must be those of {window} + {time} steps, not {keys.shape[1]}: "
            "the distances' reach less one, and one for each query"
        )
    if time == 0:
        return values[:, :0]
    # Each block of queries sees the window before it and itself: all blocks are alike.
    block = min(time, max(window, SMALLEST_BLOCK))
    padding = -time % block
    queries = functional.pad(queries, (0, 0, 0, 0, 0, padding))
    queries = queries.unflatten(1, (-1, block)).transpose(2, 3)  # (batch, blocks, heads, steps, keys)
    keys, values = (  # (batch, blocks, heads, keys, seen)
        functional.pad(x, (0, 0, 0, 0, 0, padding)).unfold(1, window + block, block) for x in (keys, values)
    )
    scores = relative_scores(queries, keys, distances, content_bias, position_bias)
    visible = _visible(functional.pad(document, (0, padding), value=-1), window, block)
    outputs = masked_softmax(scores, visible.unsqueeze(2)) @ values.mT
    outputs = outputs.transpose(2, 3).flatten(1, 2)[:, :time]
    return torch.where((document[:, window:] >= 0)[:, :, None, None], outputs, 0)


def relative_scores(
    queries: Float[Tensor, "*batch heads steps keys"],
    keys: Float[Tensor, "*batch heads keys seen"],
    distances: Float[Tensor, "reach heads keys"],
    content_bias: Float[Tensor, "heads keys"],
    position_bias: Float[Tensor, "heads keys"],
) -> Float[Tensor, "*batch heads steps seen"]:
    """The scores of one block, scaled, by a product of every query with every distance.

    Args:
        queries: of the last `steps` of the steps seen.
        keys: of exactly reach - 1 steps before the first query, and of the queries' own.
        distances: r_d for d = 0 to reach - 1; what lies further back, or ahead, gets a score that means
            nothing.
    """
    scale = queries.shape[-1] ** -0.5
    queries = queries * scale
    content = (queries + (content_bias * scale).unsqueeze(1)) @ keys
    position = (queries + (position_bias * scale).unsqueeze(1)) @ distances.flip(0).permute(1, 2, 0)
    return content + shifted(position)


def relative_scores_at(
    queries: Float[Tensor, "*batch heads steps keys"],
    keys: Float[Tensor, "*batch heads keys seen"],
    distances: Float[Tensor, "reach heads keys"],
    content_bias: Float[Tensor, "heads keys"],
    position_bias: Float[Tensor, "heads keys"],
    distance: Int[Tensor, "*batch steps seen"],
) -> Float[Tensor, "*batch heads steps seen"]:
    """The same for keys at any distance: `distance` says which of the rows of `distances` is whose."""
    scale = queries.shape[-1] ** -0.5
    queries = queries * scale
    content = (queries + (content_bias * scale).unsqueeze(1)) @ keys
    position = (queries + (position_bias * scale).unsqueeze(1)) @ distances.permute(1, 2, 0)
    return content + position.gather(-1, distance.unsqueeze(-3).expand_as(content))


def shifted(scores: Float[Tensor, "*batch steps reach"]) -> Float[Tensor, "*batch steps seen"]:
    """Moves row i to the right by i: column c of row i is then the score of step i + c of those seen.

    What moves is nothing but the length of a row: rows padded to reach + steps, cut again one shorter.
    """
    steps, reach = scores.shape[-2:]
    padded = functional.pad(scores, (0, steps)).flatten(-2)
    width = reach + steps - 1
    return padded[..., : steps * width].unflatten(-1, (steps, width))


def _visible(
    document: Int[Tensor, "batch seen"], window: int, block: int
) -> Bool[Tensor, "batch blocks steps columns"]:
    """Which of a block's columns each of its steps sees."""
    columns = torch.arange(window + block, device=document.device)
    distance = columns[window:, None] - columns
    documents = document.unfold(1, window + block, block).unsqueeze(2)
    own = documents[..., window:].mT
    return (distance >= 0) & (distance <= window) & (own == documents) & (documents >= 0)


def masked_softmax(scores: Tensor, visible: Tensor) -> Tensor:
    """Weights over what is visible; where nothing is, some finite weights that the caller discards."""
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1)
