"""How the gradient gets through a choice among retrieved records: scores in, weights out, then `mix`.

Higher scores are better; where nothing was found the score is minus infinity. A row in which nothing
was found at all has weights zero, and so reads zero.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mix(
    weights: Float[Tensor, "*rows found"], values: Float[Tensor, "*rows found width"]
) -> Float[Tensor, "*rows width"]:
    """The weighted sum of the values."""
    return (weights.unsqueeze(-2) @ values).squeeze(-2)


def soft_top_k(scores: Float[Tensor, "*rows found"], k: int) -> Float[Tensor, "*rows found"]:
    """Softmax over the `k` best, ties by position, and zero for the others.

    The gradient is that of the softmax over the chosen; the choice itself has none.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    passed_over = torch.ones_like(scores, dtype=torch.bool).scatter(-1, _best(scores, k), False)
    return _softmax(scores.masked_fill(passed_over, -torch.inf))


def straight_through(scores: Float[Tensor, "*rows found"]) -> Float[Tensor, "*rows found"]:
    """One for the best, ties by position, and zero for the others; the gradient is the softmax's.

    Forward is a hard choice, backward pretends that it was the softmax (Bengio, Leonard & Courville
    2013): biased, but without variance.
    """
    soft = _softmax(scores)
    hard = torch.zeros_like(soft).scatter(-1, _best(scores, 1), 1.0).masked_fill(_nothing_found(scores), 0.0)
    return hard + (soft - soft.detach())  # in this order the difference is exactly zero


def sample(
    scores: Float[Tensor, "*rows found"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "*rows found"], Float[Tensor, "*rows"]]:
    """One of the records, drawn with the softmax's probabilities: (weights, log-probability).

    The weights are one for what was drawn and zero for the others, and carry no gradient to the
    scores: `reinforce` makes it of the log-probability (zero where nothing was found).
    """
    nothing = _nothing_found(scores)
    log_probabilities = scores.masked_fill(nothing, 0.0).log_softmax(dim=-1)
    rows = log_probabilities.detach().exp().reshape(-1, scores.shape[-1])
    drawn = torch.multinomial(rows, 1, generator=generator).reshape(*scores.shape[:-1], 1)
    weights = torch.zeros_like(scores).scatter(-1, drawn, 1.0).masked_fill(nothing, 0.0)
    log_probability = log_probabilities.gather(-1, drawn).masked_fill(nothing, 0.0)
    return weights, log_probability.squeeze(-1)


def reinforce(
    loss: Float[Tensor, "*rows"],
    log_probability: Float[Tensor, "*rows"],
    baseline: float | Float[Tensor, "*#rows"] = 0.0,
) -> Float[Tensor, "*rows"]:
    """The loss of what was sampled, with a gradient that estimates the expected loss's without bias.

    REINFORCE (Williams 1992): the gradient is that of the loss itself plus
    (loss - baseline) x the gradient of the log-probability.

    Args:
        loss: of each row, computed from what `sample` drew for it.
        log_probability: from `sample`.
        baseline: anything that does not depend on what this row drew leaves the estimate unbiased. The
            least variance has the expected loss, each loss weighted by its log-probability's squared
            gradient; the running mean of the loss is the usual stand-in.
    """
    credit = (loss - baseline).detach() * log_probability
    return loss + (credit - credit.detach())


def _best(scores: Tensor, k: int) -> Int[Tensor, "*rows best"]:
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :k]


def _nothing_found(scores: Tensor) -> Bool[Tensor, "*rows 1"]:
    return scores.isneginf().all(dim=-1, keepdim=True)


def _softmax(scores: Tensor) -> Tensor:
    nothing = _nothing_found(scores)
    return scores.masked_fill(nothing, 0.0).softmax(dim=-1).masked_fill(nothing, 0.0)
