"""The gated delta rule on a GPU: flash-linear-attention's kernels, where that library is installed.

Each kernel is one form of the recurrence of `ops.delta_rule`; of those that have the given gates the one that
does least is taken. They are not the same to the last digits: products are of bfloat16, summed in float32,
and what a chunk begins with is rounded to bfloat16 where it is read, though carried on in float32. So they
are for who chose bfloat16 already; float32 stays with `delta_rule_chunked`. Their gradients have no gradients
of their own.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mnemos.ops.delta_rule import LEAST_LOG_DECAY

CHUNK = 64  # steps that a kernel takes together: of fewer it has nothing to gain
LEAST_KEYS, MOST_KEYS = 16, 256  # features of a key between which the kernels have blocks

Kernel = Callable[..., tuple[Tensor, Tensor]]


class Kernels(NamedTuple):
    """What is taken of flash-linear-attention, by our names."""

    linear_attention: Kernel  # one decay a head, or none
    delta_rule: Kernel
    gated_delta: Kernel
    kimi_delta: Kernel
    gated_delta_2: Kernel


def can_fuse(
    queries: Float[Tensor, "batch time channels"],
    keys: Float[Tensor, "batch time channels"],
    values: Float[Tensor, "batch time _"],
    weights: Float[Tensor, "batch heads width keys"],
) -> bool:
    """Whether `delta_rule_fused` is for these: bfloat16 on CUDA, of a length and size that gain by it.

    Not while a graph is compiled, which the kernels would break, and not where they are missing.

    Args:
        queries: as the network around computed them, not yet raised to float32; keys and values likewise.
        weights: the state, in float32.
    """
    fits = queries.shape[1] >= CHUNK and LEAST_KEYS <= weights.shape[-1] <= MOST_KEYS
    chosen = all(x.is_cuda and x.dtype == torch.bfloat16 for x in (queries, keys, values))
    ready = fits and chosen and weights.dtype == torch.float32 and not torch.compiler.is_compiling()
    return ready and installed() is not None


@cache
def installed() -> Kernels | None:
    """The kernels, or None where flash-linear-attention, or one of them, is missing. Imports it."""
    try:
        from fla.ops.delta_rule import chunk_delta_rule
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.gdn2 import chunk_gdn2
        from fla.ops.kda import chunk_kda
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError:
        return None
    return Kernels(chunk_simple_gla, chunk_delta_rule, chunk_gated_delta_rule, chunk_kda, chunk_gdn2)


def delta_rule_fused(
    queries: Float[Tensor, "batch time heads keys"],
    keys: Float[Tensor, "batch time heads keys"],
    values: Float[Tensor, "batch time heads width"],
    weights: Float[Tensor, "batch heads width keys"],
    *,
    committed: Float[Tensor, "batch time heads #width"],
    erased: Float[Tensor, "batch time heads #keys"] | None,
    log_decay: Float[Tensor, "batch time heads #keys"] | None = None,
    reset: Bool[Tensor, "batch time"] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Float[Tensor, "batch time heads width"], Float[Tensor, "batch heads width keys"]]:
    """`delta_rule_loop` with `read_first`, where w = committed ⊙ values and e = erased ⊙ keys.

    At least one step. With `reset` it waits for the GPU once, to learn how many documents there are.

    Args:
        committed: the share of each channel of a value that is written.
        erased: the share of each channel of a key whose old answer is taken away, None for none. Where one
            number is the share of both, the very tensor that `committed` is.
        dtype: that of the products.

    Returns:
        What each query read before its own step, and the weights after the last step.
    """
    initial = weights if reset is None else weights.masked_fill(reset[:, :1, None, None], 0)
    first, later = queries.split([1, queries.shape[1] - 1], dim=1)
    known = torch.einsum("bhwk,bthk->bthw", initial, first.to(initial.dtype))
    # A kernel reads after it writes: each step asks what the next one is to know.
    asking = functional.pad(later, (0, 0, 0, 0, 0, 1))
    if erased is None:
        values, committed = committed * values, torch.ones_like(committed)
    kernel, gates = _choose(keys, values, committed, erased, log_decay)
    steps = {"q": asking, "k": keys, "v": values, **gates}
    # The decays alone are not rounded: they are summed.
    steps = {name: x.float() if name == "g" else x.to(dtype) for name, x in steps.items()}
    kernel = partial(kernel, scale=1.0, output_final_state=True)
    if reset is None:
        read, after = kernel(**steps, initial_state=initial.mT)
        weights = after.mT
    else:
        read, weights = _by_document(kernel, steps, initial, reset)
    outputs = torch.cat([known, read[:, :-1].to(known.dtype)], dim=1)
    if reset is not None:  # where a document begins nothing is known
        outputs = outputs.masked_fill(reset[:, :, None, None], 0)
    return outputs, weights


def _choose(
    keys: Tensor, values: Tensor, committed: Tensor, erased: Tensor | None, log_decay: Tensor | None
) -> tuple[Kernel, dict[str, Tensor]]:
    """The kernel that does least of those that have these gates, and the gates by its names."""
    kernels = installed()
    assert kernels is not None
    decay = None if log_decay is None else log_decay.clamp_min(LEAST_LOG_DECAY)
    by_channel = decay is not None and decay.shape[-1] > 1
    if erased is None and not by_channel:
        return kernels.linear_attention, {} if decay is None else {"g": decay.squeeze(-1)}
    if erased is committed and committed.shape[-1] == 1:
        strength = {"beta": committed.squeeze(-1)}
        if decay is None:
            return kernels.delta_rule, strength
        if by_channel:
            return kernels.kimi_delta, {"g": decay, **strength}
        return kernels.gated_delta, {"g": decay.squeeze(-1), **strength}
    none = torch.zeros_like(keys)
    return kernels.gated_delta_2, {
        "g": none if decay is None else decay.expand_as(keys),
        "b": none if erased is None else erased.expand_as(keys),
        "w": committed.expand_as(values),
    }


def _by_document(
    kernel: Kernel, steps: dict[str, Tensor], initial: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """All rows in one, cut where a row or a document begins: kernels know no other reset."""
    begins = functional.pad(reset[:, 1:], (1, 0), value=True)
    document = begins.flatten().cumsum(0).view_as(begins) - 1
    edges = functional.pad(begins.flatten().nonzero().squeeze(1), (0, 1), value=begins.numel())
    states = initial.new_zeros(len(edges) - 1, *initial.shape[1:]).index_copy(0, document[:, 0], initial)
    steps = {name: x.flatten(0, 1).unsqueeze(0) for name, x in steps.items()}
    read, after = kernel(**steps, initial_state=states.mT, cu_seqlens=edges)
    return read.squeeze(0).unflatten(0, begins.shape), after.mT[document[:, -1]]
