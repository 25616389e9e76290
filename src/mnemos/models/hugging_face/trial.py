"""What the laws of attachment are tried with: memories on a model, texts, and what counts as the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mnemos.memories.delta_rule import DeltaRule
from mnemos.models.hugging_face.attachment import Attachment, attach
from mnemos.models.hugging_face.attention_memory import AttentionMemory
from mnemos.models.hugging_face.residual_memory import ResidualPart
from mnemos.models.hugging_face.surface import decoder

NEW_TOKENS = 5


@contextmanager
def attached(model: Any, segments: int | None = None) -> Iterator[Attachment]:
    """The model with memories that are empty."""
    found = decoder(model)
    torch.manual_seed(1)
    memory = DeltaRule(found.hidden_size, heads=2, key_size=8, value_size=8)
    memories: dict[int, Any] = {0: AttentionMemory(top_k=4, capacity=64), len(found.layers) - 1: memory}
    attachment = attach(model, memories, segments=segments)
    try:
        yield attachment
    finally:
        if attachment.attached:
            attachment.detach()


@contextmanager
def at_work(model: Any, segments: int | None = None) -> Iterator[Attachment]:
    """The model with memories that change its outputs."""
    with attached(model, segments) as attachment:
        with torch.no_grad(), attachment.memorize():
            model(tokens_for(model, seed=2))
        torch.manual_seed(3)
        for part in residual(attachment):
            part.gate.data.normal_()
        yield attachment


def residual(attachment: Attachment) -> list[ResidualPart]:
    return [part for part in attachment.parts.values() if isinstance(part, ResidualPart)]


def tokens_for(model: Any, seed: int = 0) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.randint(min(10, vocabulary - 1), vocabulary, (2, 12), generator=drawn)
    return tokens.to(next(model.parameters()).device)


def generate(model: Any, tokens: Tensor, **settings: Any) -> Any:
    torch.manual_seed(4)
    settings = {"attention_mask": torch.ones_like(tokens), "do_sample": False, **settings}
    new = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "pad_token_id": 0}
    return model.generate(tokens, return_dict_in_generate=True, output_logits=True, **new, **settings)


@contextmanager
def no_dropout(model: Any) -> Iterator[None]:
    """Training mode without its randomness."""
    rates = {part: part.p for part in model.modules() if isinstance(part, nn.Dropout)}
    for part in rates:
        part.p = 0.0
    try:
        yield
    finally:
        for part, rate in rates.items():
            part.p = rate


def assert_same(one: Tensor, other: Tensor) -> None:
    assert torch.equal(one, other), f"{(one != other).sum()} of {one.numel()} differ"


def assert_close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    difference = float((one - other).detach().abs().max())
    assert difference <= tolerance, f"the greatest difference is {difference:.2e}"
