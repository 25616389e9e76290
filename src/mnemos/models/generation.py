"""Going on from where a text stops, one token at a time, with the memory carried along."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.models.transformer import Transformer


@torch.no_grad()
def generate(
    model: Transformer,
    tokens: Int[Tensor, "batch time"],
    steps: int,
    *,
    state: Any = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch more"], Any]:
    """Reads tokens, then says what follows them.

    Args:
        tokens: at least one; after a state, only what is new.
        steps: how many tokens to say.
        state: where the rows stood before `tokens`; None at the start of a document, whose mark is then to
            be the first of `tokens` (`model.start`).
        temperature: what logits are divided by before a token is drawn; 0 takes the likeliest.
        top_p: draws among the likeliest tokens that together have at least this probability, above 0 to 1.
        generator: of the draws; None is torch's own.

    Returns:
        What was said, (batch, steps), and the state after all of it but the last token: give that token and
        the state to go on.
    """
    if tokens.shape[1] < 1:
        raise ValueError("tokens must hold at least one token for each row")
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    said = tokens[:, :0]
    for _ in range(steps):
        logits, state = model(tokens, state)
        tokens = _chosen(logits[:, -1], temperature, top_p, generator)
        said = torch.cat([said, tokens], dim=1)
    return said, state


def _chosen(
    logits: Float[Tensor, "batch vocabulary"],
    temperature: float,
    top_p: float,
    generator: torch.Generator | None,
) -> Int[Tensor, "batch 1"]:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    shares, order = (logits.float() / temperature).softmax(-1).sort(dim=-1, descending=True)
    before = shares.cumsum(-1) - shares
    drawn = torch.multinomial(shares.masked_fill(before >= top_p, 0), 1, generator=generator)
    return order.gather(1, drawn)
