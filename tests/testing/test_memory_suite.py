"""For every law a memory that breaks it, and only it; so the suite is known to see what it looks for."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.testing import MemorySuite
from mnemos.tree import reset_rows, where_rows

LAWS = ["split", "mask", "reset", "rows", "snapshot", "finite", "bounded", "learns", "pure", "twin"]


class TraceState(NamedTuple):
    trace: Tensor
    speed: Tensor
    steps: Tensor


class Trace(Memory):
    """A decaying trace with momentum. It keeps every law; the faults below change one thing each."""

    def __init__(self, size=3):
        super().__init__()
        self.size = self.input_size = self.output_size = size
        self.weight = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(0)))
        self.decay = nn.Parameter(torch.zeros(size))
        self.momentum = nn.Parameter(torch.zeros(size))

    def initial_state(self, batch_size):
        zeros = self._origin.new_zeros(batch_size, self.size)
        return TraceState(zeros, zeros.clone(), zeros.new_zeros(batch_size, dtype=torch.int64))

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        state, real, fresh = self.begin(inputs, state, mask, reset)
        before, outputs = state, []
        moves = self.features(inputs.masked_fill(~real.unsqueeze(-1), 0)) @ self.weight
        for move, step, starts in zip(moves.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state, before = self.renew(state, starts), self.renew(before, starts)
            state = self.keep(step, self.step(move, state), state)
            outputs.append(self.answer(state, before).masked_fill(~step.unsqueeze(1), 0))
        return (torch.stack(outputs, dim=1) if outputs else torch.zeros_like(inputs)), state

    def features(self, inputs):
        return inputs

    def renew(self, state, starts):
        return reset_rows(state, starts, self.initial_state(1))

    def step(self, move, state):
        speed = self.momentum.sigmoid() * state.speed + move
        return TraceState(self.decay.sigmoid() * state.trace + speed, speed, state.steps + 1)

    def keep(self, real, new, old):
        return where_rows(real, new, old)

    def answer(self, state, before):
        return state.trace + state.speed


class ReadsOnlyWhatWasBeforeTheCall(Trace):
    """As in a package whose read vectors reach the controller once per call."""

    def answer(self, state, before):
        return state.trace + before.speed


class DecaysAtMaskedSteps(Trace):
    """Only the input is masked: decay and momentum still act."""

    def keep(self, real, new, old):
        return new._replace(steps=torch.where(real, new.steps, old.steps))


class KeepsMomentumOverReset(Trace):
    def renew(self, state, starts):
        return super().renew(state, starts)._replace(speed=state.speed)


class NormalisesOverTheBatch(Trace):
    def features(self, inputs):
        return inputs - inputs.mean(dim=0) if self.training else inputs


class DrawsWhatItDoesNotSave(Trace):
    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.randn(3, 3), persistent=False)

    def features(self, inputs):
        return inputs @ self.mix


class OverflowsAtLargeInputs(Trace):
    def features(self, inputs):
        return inputs.exp()


class KeepsTheSequenceAlive(Trace):
    """The state is a view of all the outputs: small to look at, as long as the sequence in memory."""

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        outputs, state = super().forward(inputs, state, mask=mask, reset=reset)
        traces = torch.cat([outputs, state.trace.unsqueeze(1)], dim=1)
        return outputs, state._replace(trace=traces[:, -1])


class CannotLearnItsDecay(Trace):
    def step(self, move, state):
        speed = self.momentum.sigmoid() * state.speed + move
        return TraceState(self.decay.detach().sigmoid() * state.trace + speed, speed, state.steps + 1)


class CountsInTheCallersState(Trace):
    def forward(self, inputs, state=None, *, mask=None, reset=None):
        state = self.initial_state(len(inputs)) if state is None else state
        outputs, after = super().forward(inputs, state, mask=mask, reset=reset)
        return outputs, after._replace(steps=state.steps.copy_(after.steps))


class StartsAtRandom(Trace):
    """As in a package that draws the state of its controller on every call that is given none."""

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        if state is None:
            state = self.initial_state(len(inputs))
            state = state._replace(trace=torch.randn_like(state.trace))
        return super().forward(inputs, state, mask=mask, reset=reset)


class BranchesOnData(Trace):
    def features(self, inputs):
        return inputs if inputs.sum() > 0 else 1 * inputs


class TotalState(NamedTuple):
    total: Tensor


class Total(Memory):
    """The sum of all inputs, for all steps at once: a fast path, and a loop beside it."""

    def __init__(self):
        super().__init__()
        self.input_size = self.output_size = 3
        self.naive = False
        self.weight = nn.Parameter(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))

    def initial_state(self, batch_size):
        return TotalState(self._origin.new_zeros(batch_size, 3))

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        state, real, fresh = self.begin(inputs, state, mask, reset)
        moves = inputs.masked_fill(~real.unsqueeze(-1), 0) @ self.weight
        if not inputs.shape[1]:
            return moves, state
        run = self.loop if getattr(self, "naive", False) else self.together
        outputs = run(moves, state.total, fresh)
        return outputs.masked_fill(~real.unsqueeze(-1), 0), TotalState(outputs[:, -1].clone())

    def together(self, moves, total, fresh):
        resets = fresh.cumsum(dim=1)
        same = (resets.unsqueeze(2) == resets.unsqueeze(1)).tril().to(moves)
        return same @ moves + total.unsqueeze(1) * (resets == 0).unsqueeze(2)

    def loop(self, moves, total, fresh):
        outputs = []
        for move, starts in zip(moves.unbind(1), fresh.unbind(1), strict=True):
            total = total.masked_fill(starts.unsqueeze(1), 0) + move
            outputs.append(total)
        return torch.stack(outputs, dim=1)


class ApproximatesItsLoop(Total):
    def loop(self, moves, total, fresh):
        return super().loop(1.001 * moves, total, fresh)


class HidesItsFastPath(Total):
    def __init__(self):
        super().__init__()
        del self.naive


class RingState(NamedTuple):
    keys: Tensor
    values: Tensor
    steps: Tensor


class Ring(AddressableMemory):
    """The last three pairs, in turn."""

    def __init__(self):
        super().__init__()
        self.input_size = self.output_size = 3
        self.capacity = 3

    def initial_state(self, batch_size):
        zeros = self._origin.new_zeros(batch_size, 3, 3)
        return RingState(zeros, zeros.clone(), zeros.new_zeros(batch_size, dtype=torch.int64))

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs, outputs = inputs.masked_fill(~real.unsqueeze(-1), 0), [inputs[:, :0]]
        for x, step, starts in zip(inputs.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state, x = reset_rows(state, starts, self.initial_state(1)), x.unsqueeze(1)
            outputs.append(self.read(state, x).values.masked_fill(~step.view(-1, 1, 1), 0))
            state = where_rows(step, self.write(state, x, x), state)
        return torch.cat(outputs, dim=1), state

    def write(self, state, keys, values, *, strength=None, mask=None):
        for step, (key, value) in enumerate(zip(keys.unbind(1), values.unbind(1), strict=True)):
            real = torch.ones_like(state.steps, dtype=torch.bool) if mask is None else mask[:, step]
            real = real if strength is None else real & (strength[:, step] > 0)
            slot, other = (real.unsqueeze(1) & at.bool() for at in self.places(state.steps))
            state = RingState(
                torch.where(slot.unsqueeze(2), key.unsqueeze(1), state.keys),
                torch.where(other.unsqueeze(2), value.unsqueeze(1), state.values),
                state.steps + real,
            )
        return state

    def places(self, steps):
        at = nn.functional.one_hot(steps % 3, 3)
        return at, at

    def read(self, state, queries):
        filled = (torch.arange(3) < state.steps.unsqueeze(1)).unsqueeze(1).expand(-1, queries.shape[1], -1)
        scores = (queries @ state.keys.transpose(1, 2)).masked_fill(~filled, -1e30)
        weights = scores.softmax(dim=2).masked_fill(~filled, 0)
        slots = torch.arange(3).expand_as(filled).masked_fill(~filled, -1)
        return Reading(weights @ state.values.to(weights), weights, slots)


class WrapsKeysAndValuesApart(Ring):
    """As in a package whose index restarts at 0 when it is full, and whose table does not."""

    def places(self, steps):
        return nn.functional.one_hot(steps % 3, 3), nn.functional.one_hot(steps.clamp(max=2), 3)


FAULTS = {
    "split": [ReadsOnlyWhatWasBeforeTheCall],
    "mask": [DecaysAtMaskedSteps],
    "reset": [KeepsMomentumOverReset],
    "rows": [NormalisesOverTheBatch],
    "snapshot": [DrawsWhatItDoesNotSave],
    "finite": [OverflowsAtLargeInputs],
    "bounded": [KeepsTheSequenceAlive, WrapsKeysAndValuesApart],
    "learns": [CannotLearnItsDecay],
    "pure": [CountsInTheCallersState, StartsAtRandom],
    "twin": [ApproximatesItsLoop, HidesItsFastPath],
}


def broken(memory, laws=(*LAWS, "addressing")):
    """What the suite says of each law that it finds broken."""
    said = {}
    for law in laws:
        try:
            getattr(MemorySuite(), f"test_{law}")(memory)
        except AssertionError as error:
            said[law] = str(error)
    return said


@pytest.mark.parametrize("kind", [Trace, Total, Ring, BranchesOnData])
def test_a_memory_that_keeps_the_laws_passes(kind):
    assert broken(kind()) == {}


@pytest.mark.parametrize(("law", "kind"), [(law, kind) for law, kinds in FAULTS.items() for kind in kinds])
def test_a_fault_breaks_its_law_and_no_other(law, kind):
    said = broken(kind())
    assert list(said) == [law]
    assert said[law].startswith(f"{kind.__name__} breaks law {LAWS.index(law) + 1} ({law}): ")


@pytest.mark.compiles
@pytest.mark.parametrize("kind", [Trace, Total, Ring])
def test_a_memory_that_compiles_passes(kind):
    assert broken(kind(), ["compiles"]) == {}


@pytest.mark.compiles
def test_a_branch_on_data_breaks_the_law_of_compiling():
    assert "law 11 (compiles)" in broken(BranchesOnData(), ["compiles"])["compiles"]
