"""What teaches a compression function alone: Rae et al. 2020, section 3.2.

Both losses are of a stretch, as `forward` is: they take the same inputs and state, and judge the blocks that
the stretch compresses. Only the compression's parameters have a gradient, and a decoder's. A model of
several layers adds up what its layers say.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.compressive import CompressiveMemory, CompressiveState
from mnemos.ops.relative_attention import masked_softmax


def attention_reconstruction_loss(
    memory: CompressiveMemory,
    inputs: Float[Tensor, "batch time input"],
    state: CompressiveState | None = None,
    *,
    mask: Bool[Tensor, "batch time"] | None = None,
    reset: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, ""]:
    """How far reading compressed blocks is from reading their steps: L_attn, algorithm 2.

    The mean squared difference, per component of the heads' values, of what the steps of the stretch read by
    content, with no sense of distance; zero if nothing is compressed.
    """
    rate = memory.compression.rate
    errors, asked = [], []
    for leaving in memory.leaving_in(inputs, state, mask=mask, reset=reset):
        document = leaving.document.unsqueeze(1)
        visible = (document == leaving.asking_document.unsqueeze(2)) & (document >= 0)
        steps = leaving.steps[:, :, -rate:].flatten(1, 2)
        expected = _read(memory, leaving.asking, steps, visible.repeat_interleave(rate, dim=2))
        summaries = memory.compression(leaving.steps, leaving.usage)
        errors.append((_read(memory, leaving.asking, summaries, visible) - expected).square().mean(2))
        asked.append(visible.any(2))
    return _average(errors, asked, inputs)


def auto_encoding_loss(
    memory: CompressiveMemory,
    decoder: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "batch time input"],
    state: CompressiveState | None = None,
    *,
    mask: Bool[Tensor, "batch time"] | None = None,
    reset: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, ""]:
    """How well a decoder finds the steps of a block again: L_ae.

    The mean squared difference per component; zero if nothing is compressed.

    Args:
        decoder: (batch, blocks, width) to (batch, blocks, rate, width), for instance an `Expansion`.
    """
    errors, there = [], []
    for leaving in memory.leaving_in(inputs, state, mask=mask, reset=reset):
        found = decoder(memory.compression(leaving.steps, leaving.usage))
        errors.append((found - leaving.steps[:, :, -memory.compression.rate :]).square().mean((2, 3)))
        there.append(leaving.document >= 0)
    return _average(errors, there, inputs)


def _read(memory: CompressiveMemory, asking: Tensor, seen: Tensor, visible: Tensor) -> Tensor:
    """Attention by the memory's weights, which are not taught."""
    queries, keys, values = (
        functional.linear(x, layer.weight.detach())
        .unflatten(2, (memory.heads, memory.key_size))
        .transpose(1, 2)
        for x, layer in ((asking, memory.query), (seen, memory.key), (seen, memory.value))
    )
    weights = masked_softmax(queries @ keys.mT * memory.key_size**-0.5, visible.unsqueeze(1))
    return (weights @ values).transpose(1, 2).flatten(2)


def _average(errors: list[Tensor], counted: list[Tensor], inputs: Tensor) -> Tensor:
    """The mean of what counts; zero where nothing does."""
    if not errors:
        return inputs.new_zeros(())
    total = torch.stack([error.where(real, 0).sum() for error, real in zip(errors, counted, strict=True)])
    return total.sum() / torch.stack([real.sum() for real in counted]).sum().clamp_min(1)
