"""How well a policy could have done: Belady's optimum, which knows the future.

The model is demand paging: a bounded set of records is asked for one after the other. A record that
is in the set is a hit; one that is not is written, and if the set is full one of the others goes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.retention.policy import Policy, Usage, order_of_departure


def belady_hits(trace: Sequence[int], capacity: int) -> int:
    """The most hits that any policy can have on this trace.

    The record that will be asked for again furthest in the future goes (Belady 1966).

    Args:
        trace: the records asked for, in order.
        capacity: records that fit, at least 1.
    """
    _check_capacity(capacity)
    hits = 0
    held: dict[int, int] = {}  # record -> when it will be asked for again
    for record, again in zip(trace, _times_again(trace), strict=True):
        if record in held:
            hits += 1
        elif len(held) == capacity:
            del held[max(held, key=lambda each: held[each])]
        held[record] = again
    return hits


def hits(
    trace: Sequence[int],
    capacity: int,
    policy: Policy,
    *,
    strength: Float[Tensor, " records"] | None = None,
    keys: Float[Tensor, "records keys"] | None = None,
) -> int:
    """The hits that a policy has on this trace. The clock is the position in the trace.

    Args:
        trace: the records asked for, in order, as positions in `strength` and `keys`.
        capacity: records that fit, at least 1.
        strength: how strongly each is written; None is 1.
        keys: for a policy that looks at them.
    """
    _check_capacity(capacity)
    if policy.reads_keys and keys is None:
        raise ValueError(f"{policy.name} looks at the keys: give keys")
    count = 0
    held: dict[int, list[int]] = {}  # record -> id, written at, last read, times read
    for time, record in enumerate(trace):
        if record in held:
            count += 1
            held[record][2:] = [time, held[record][3] + 1]
            continue
        if len(held) == capacity:
            del held[_first_to_go(policy, held, time, strength, keys)]
        held[record] = [time, time, time, 0]
    return count


def _first_to_go(
    policy: Policy, held: dict[int, list[int]], now: int, strength: Tensor | None, keys: Tensor | None
) -> int:
    records = list(held)
    ids, written_at, last_read, times_read = torch.tensor(list(held.values())).unbind(1)
    strengths = torch.ones(len(records)) if strength is None else strength[records]
    usage = Usage(ids, written_at.double(), last_read.double(), times_read, strengths)
    looked_at = torch.empty(len(records), 0) if keys is None else keys[records]
    return records[int(order_of_departure(policy, usage, looked_at, float(now))[0])]


def _times_again(trace: Sequence[int]) -> list[int]:
    """For each position the next one that asks for the same record, the trace's end if there is none."""
    following: dict[int, int] = {}
    times = []
    for time in reversed(range(len(trace))):
        times.append(following.get(trace[time], len(trace)))
        following[trace[time]] = time
    return times[::-1]


def _check_capacity(capacity: int) -> None:
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity}")
