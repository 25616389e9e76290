"""The continuum memory: do fast blocks adapt and slow blocks keep?

Behrouz et al. 2025, "Nested Learning", section 7: blocks that are changed at different frequencies hold
knowledge of different ages. Here a chain is told pairs A until it knows them, and then other pairs B with
keys of the same space, through `write` alone: no network is trained around it and its initial weights are
nothing, so this asks what equations 70 and 71 do by themselves, and not of what outer training may make of
them.

They do not separate ages. All blocks correct the same error, so that their changes are in proportion to
their rates at any time: a block with a sixteenth of the rate has a seventeenth of all that is known, be it
old or new, since the fast one has removed an error before the slow one can learn it. And to change a block
every 16 steps by the sum of what they ask is, to first order in the rate, to change it every step: half the
rate halves the difference. Rates alone say what is learned and lost, periods only when. Hence the thresholds
are what follows from the equations, and how much of A is lost once B is known is reported for every chain.

What would separate them is forgetting in the fast block. In a chain whose fast block is begun anew with every
period of the slow one, the slow block learns what periods share, and keeps it while the fast one holds B.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.continuum import ContinuumMemory, ContinuumState
from mnemos.progress import Advance
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tree import map_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SIZE, PAIRS, PERIOD = 16, 8, 16  # numbers of a key, pairs in A and in B, steps
FAST, SLOW = 0.25, 0.25 / PERIOD  # rates
LEARNED, TOLD = 64, 32  # periods in which A is told, and then B
KNOWN = 0.1  # the error with which B counts as known


class Chain(NamedTuple):
    """Two blocks, and whether the first begins anew with every period of the second."""

    periods: tuple[int, int]
    rates: tuple[float, float]
    anew: bool = False


CHAINS = {
    "fast": Chain((1, 1), (FAST, FAST)),
    "slow": Chain((PERIOD, PERIOD), (SLOW, SLOW)),
    "fast and slow": Chain((1, PERIOD), (FAST, SLOW)),
    "begun anew": Chain((1, PERIOD), (FAST, SLOW), anew=True),
    # The same rates, and every block changed at every step.
    "slow, by rate": Chain((1, 1), (SLOW, SLOW)),
    "fast and slow, by rate": Chain((1, 1), (FAST, SLOW)),
}
ALIKE = (("slow", "slow, by rate"), ("fast and slow", "fast and slow, by rate"))


class Found(NamedTuple):
    """Errors, as shares of those before anything was told: of A when it was told, then by periods of B."""

    learned: float
    slow_share: float  # of A, what the second block alone answers
    a: list[float]
    b: list[float]
    slow_a: list[float]  # the error on A of the second block alone


def measure(
    seed: int,
    full: bool,
    advance: Advance,
    *,
    streams: int | None = None,
    learned: int = LEARNED,
    told: int = TOLD,
) -> dict[str, Any]:
    """All chains are told the same.

    Args:
        streams: told beside each other; None is 16, or 64 in full.
        learned: periods in which A is told.
        told: periods in which B is told.
    """
    streams = streams or (64 if full else 16)
    found: dict[str, Found] = {}
    for number, (name, chain) in enumerate(CHAINS.items()):
        advance(number / (len(CHAINS) + 2), name)
        found[name] = follow(chain, seed, streams, learned, told)
    apart = {one: _apart(found[one], found[other]) for one, other in ALIKE}
    halved = [
        follow(Chain(periods, (FAST, SLOW / 2)), seed, streams, learned, told)
        for periods in ((1, PERIOD), (1, 1))
    ]
    mixed, anew = found["fast and slow"], found["begun anew"]
    return {
        "a": {name: of.a for name, of in found.items()},
        "b": {name: of.b for name, of in found.items()},
        "slow_block_on_a": {name: of.slow_a for name, of in found.items()},
        "error_of_a_as_told": {name: of.learned for name, of in found.items()},
        "lost_when_b_is_known": {name: lost(of.a, of.b) for name, of in found.items()},
        "period_difference": max(apart.values()),
        "period_difference_by_rate": _apart(*halved) / apart["fast and slow"],
        "slow_share": mixed.slow_share,
        "slow_share_in_theory": SLOW / (SLOW + FAST),
        "slow_share_begun_anew": anew.slow_share,
        "a_kept_begun_anew": 1 - anew.slow_a[min(3, told - 1)],
        "a_kept_otherwise": 1 - mixed.slow_a[min(3, told - 1)],
    }


@torch.no_grad()
def follow(chain: Chain, seed: int, streams: int, learned: int, told: int) -> Found:
    """Tells a chain A and then B, in an order that is new in every period."""
    torch.manual_seed(seed)
    memory = ContinuumMemory(SIZE, key_size=SIZE, periods=chain.periods)
    generator = torch.Generator().manual_seed(seed)
    a, b = functional.normalize(torch.randn(2, 2, streams, PAIRS, SIZE, generator=generator), dim=4).unbind(0)
    state = memory.initial_state(streams)
    rate = torch.tensor(chain.rates).expand(streams, PERIOD, 1, -1)

    def after(state: ContinuumState, pairs: Tensor) -> ContinuumState:
        order = torch.cat([torch.randperm(PAIRS, generator=generator) for _ in range(PERIOD // PAIRS)])
        keys, values = pairs[:, :, order]
        return memory.write(_without(state, [0]) if chain.anew else state, keys, values, rate=rate)

    for _ in range(learned):
        state = after(state, a)
    slow = _without(state, [0])
    known, share = _error(memory, state, a), _answered(memory, slow, a)
    curves: list[list[float]] = []
    for _ in range(told):
        state = after(state, b)
        asked = ((state, a), (state, b), (_without(state, [0]), a))
        curves.append([_error(memory, *of) for of in asked])
    return Found(known, share, *map(list, zip(*curves, strict=True)))


def _apart(one: Found, other: Found) -> float:
    """The greatest difference of two chains' errors while B is told."""
    return max(abs(x - y) for x, y in zip(one.a + one.b, other.a + other.b, strict=True))


def _without(state: ContinuumState, blocks: Sequence[int]) -> ContinuumState:
    """The state with some blocks as they were at first."""
    nothing = map_tensors(torch.zeros_like, (state.changes, state.pending))
    changes, pending = (
        tuple(none if number in blocks else had for number, (had, none) in enumerate(zip(*of, strict=True)))
        for of in zip((state.changes, state.pending), nothing, strict=True)
    )
    return state._replace(changes=changes, pending=pending)


def _error(
    memory: ContinuumMemory, state: ContinuumState, pairs: Float[Tensor, "two batch time keys"]
) -> float:
    """The squared error, as a share of that of a new chain, which answers a key with itself."""
    keys, values = pairs
    missing = (memory.read(state, keys).values - values).square().sum(2)
    return (missing / (keys - values).square().sum(2)).mean().item()


def _answered(
    memory: ContinuumMemory, state: ContinuumState, pairs: Float[Tensor, "two batch time keys"]
) -> float:
    """How far answers have come from keys towards values."""
    keys, values = pairs
    way = values - keys
    return (((memory.read(state, keys).values - keys) * way).sum(2) / way.square().sum(2)).mean().item()


def lost(a: Sequence[float], b: Sequence[float]) -> float:
    """The error of A where that of B comes down to `KNOWN`, between two periods; NaN if it never does."""
    before_a, before_b = 0.0, 1.0
    for now_a, now_b in zip(a, b, strict=True):
        if now_b <= KNOWN:
            return before_a + (now_a - before_a) * (before_b - KNOWN) / (before_b - now_b)
        before_a, before_b = now_a, now_b
    return float("nan")


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """A and B while B is told, the same rates without periods dotted, and what the slow block has of A."""
    from mnemos.report.drawing import INK, TUNED, WITH, WITHOUT, drawing

    looks = {"fast": WITHOUT, "slow": INK, "fast and slow": WITH, "begun anew": TUNED}
    panels = {
        "b": "B is learned",
        "a": "A is lost",
        "slow_block_on_a": "A, the slow block alone",
    }
    with drawing(2.9, columns=3) as (figure, axes):
        for panel, (what, title) in zip(axes, panels.items(), strict=True):
            for name, errors in measured[what].items():
                chain, _, by_rate = name.partition(",")
                if what == "slow_block_on_a" and (by_rate or chain in ("fast", "slow")):
                    continue
                steps = [PERIOD * (number + 1) for number in range(len(errors))]
                style = {"linestyle": ":", "linewidth": 2.4} if by_rate else {"linewidth": 1.3, "label": name}
                panel.plot(steps, errors, color=looks[chain], **style)
            panel.set_xscale("log", base=2)
            panel.set_xticks([16, 64, 256], ["16", "64", "256"])
            panel.set(title=title, xlabel="steps of B", ylim=(0, 1))
        axes[0].set_ylabel("error")
        axes[0].legend(frameon=False, fontsize=8.5)
    return figure


STUDY = Study(
    name="continuum",
    title="What a slow block keeps is what its rate keeps; its period says when (Behrouz et al. 2025)",
    measure=measure,
    thresholds={
        "period_difference": Threshold("<=", 0.05),
        "period_difference_by_rate": Threshold("<=", 0.7),
        "slow_share": Threshold("<=", 0.1),
        "slow_share_begun_anew": Threshold(">=", 0.8),
        "a_kept_begun_anew": Threshold(">=", 0.8),
        "a_kept_otherwise": Threshold("<=", 0.2),
    },
    paper=[
        Figure(
            "blocks of a lower frequency",
            "keep knowledge for longer (no figure of the memory alone)",
            "Behrouz et al. 2025, Nested Learning, section 7",
        ),
    ],
    draw=draw,
)
