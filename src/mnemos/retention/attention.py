"""What an attention cache lets go: all but the first and the last, or what got the least attention.

These are for a memory's state, whose ids and times are steps of its document.
"""

from functools import partial

from torch import Tensor

from mnemos.retention.policy import Policy, Usage, first_in_first_out


def attention_sinks(count: int, then: Policy | None = None) -> Policy:
    """The first `count` steps stay, and another policy decides about the rest.

    Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks": a softmax that has nothing
    to look at looks at the first steps, and a window that lets them go takes away what all later weights
    were learned with.

    Args:
        then: None is first in, first out: a window.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    then = first_in_first_out() if then is None else then
    name = f"attention_sinks({count}, {then.name})"
    return Policy(name, partial(_first_stay, count=count, then=then), then.reads_keys)


def _first_stay(
    usage: Usage, keys: Tensor, now: float | Tensor, count: int, then: Policy
) -> tuple[Tensor, ...]:
    return (usage.ids < count).long(), *then.score(usage, keys, now)


def heavy_hitters(recent: int) -> Policy:
    """What got the least attention in all its time goes, but the last `recent` steps stay.

    Zhang et al. 2023, "H2O: Heavy-Hitter Oracle", which keeps half of a cache for recent steps. A step's
    strength is the attention that it got.
    """
    if recent < 0:
        raise ValueError(f"recent must be at least 0, not {recent}")
    return Policy(f"heavy_hitters({recent})", partial(_by_attention, recent=recent))


def _by_attention(usage: Usage, keys: Tensor, now: float | Tensor, recent: int) -> tuple[Tensor, ...]:
    return (now - usage.written_at <= recent).long(), usage.strength
