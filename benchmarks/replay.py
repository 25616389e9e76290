"""What replaying 256 of 100,000 experiences takes, uniformly and by surprise, beside replay buffers.

    OMP_NUM_THREADS=1 python benchmarks/replay.py [--rounds 25] [--calls 40] [--experiences 100000]

An experience is a pair of 64 float32 numbers each. `Episodes` lie in a store in RAM and in an embedded store
on disk; beside them are cpprb, whose sampling and sum tree are compiled, torchrl's LazyTensorStorage, and the
floor: two index_selects from two tensors, which keep nothing but numbers. By surprise means a sample in
proportion to priorities, its importance weights, and new priorities for it. Every round makes so many calls
of every form, in turn; what is counted is the processor time of the one thread. Writing is timed once for all
100,000, and 256 at a time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor

import mnemos
from mnemos.consolidation import Episodes, Prioritised

WIDTH, BATCH = 64, 256


class Form(NamedTuple):
    """One way of keeping experiences; what it cannot do is None."""

    write: Callable[[Tensor, Tensor], object]
    sample: Callable[[], object]
    by_surprise: Callable[[], object] | None


def of_mnemos(where: str | Path, surprise: Tensor) -> Form:
    episodes, priorities = Episodes(mnemos.open(where)), Prioritised()

    def by_surprise() -> None:
        ids = episodes.sample(BATCH, priorities).ids
        priorities.corrections(ids, 0.4)
        priorities.update(ids, surprise)

    return Form(episodes.write, partial(episodes.sample, BATCH), by_surprise)


def of_cpprb(capacity: int, surprise: Tensor) -> Form:
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    fields = {name: {"shape": WIDTH} for name in ("inputs", "targets")}
    plain, prioritised = ReplayBuffer(capacity, fields), PrioritizedReplayBuffer(capacity, fields)
    numbers = surprise.numpy()

    def write(inputs: Tensor, targets: Tensor) -> None:
        plain.add(inputs=inputs.numpy(), targets=targets.numpy())

    def by_surprise() -> None:
        if not prioritised.get_stored_size():
            prioritised.add(**{name: plain.get_all_transitions()[name] for name in fields})
        prioritised.update_priorities(prioritised.sample(BATCH, beta=0.4)["indexes"], numbers)

    return Form(write, partial(plain.sample, BATCH), by_surprise)


def of_torchrl(capacity: int, surprise: Tensor) -> Form:
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

    plain = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=BATCH)

    def write(inputs: Tensor, targets: Tensor) -> None:
        plain.extend(TensorDict({"inputs": inputs, "targets": targets}, batch_size=[len(inputs)]))

    try:
        storage = LazyTensorStorage(capacity)
        prioritised = TensorDictPrioritizedReplayBuffer(
            alpha=0.6, beta=0.4, storage=storage, batch_size=BATCH, priority_key="surprise"
        )
    except (RuntimeError, NameError, ImportError) as error:  # compiled for another torch
        print(f"torchrl's prioritised buffer cannot be made: {error}")
        return Form(write, plain.sample, None)

    def by_surprise() -> None:
        if not len(prioritised):
            prioritised.extend(plain[:])
        batch = prioritised.sample()
        batch["surprise"] = surprise
        prioritised.update_tensordict_priority(batch)

    return Form(write, plain.sample, by_surprise)


def of_tensors(capacity: int, surprise: Tensor) -> Form:
    inputs, targets = torch.zeros(capacity, WIDTH), torch.zeros(capacity, WIDTH)
    end = 0

    def write(new_inputs: Tensor, new_targets: Tensor) -> None:
        nonlocal end
        for column, new in ((inputs, new_inputs), (targets, new_targets)):
            column[end : end + len(new)] = new
        end += len(new_inputs)

    def sample() -> tuple[Tensor, Tensor]:
        rows = torch.randint(end, (BATCH,))
        return inputs.index_select(0, rows), targets.index_select(0, rows)

    return Form(write, sample, None)


@contextmanager
def all_forms(capacity: int) -> Iterator[dict[str, Form]]:
    """Those that are installed."""
    surprise = torch.rand(BATCH)
    with tempfile.TemporaryDirectory() as folder:
        made = {
            "mnemos, in RAM": partial(of_mnemos, ":memory:"),
            "mnemos, on disk": partial(of_mnemos, Path(folder) / "episodes.memory"),
            "cpprb": partial(of_cpprb, capacity),
            "torchrl, LazyTensorStorage": partial(of_torchrl, capacity),
            "two tensors": partial(of_tensors, capacity),
        }
        forms = {}
        for name, make in made.items():
            try:
                forms[name] = make(surprise)
            except ImportError as error:
                print(f"{name} is left out: {error}")
        yield forms


def taken(call: Callable[[], object]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def rows(experiences: int, rounds: int, calls: int) -> Iterator[str]:
    """Rows of the table."""
    data = torch.randn(2, experiences, WIDTH)
    with all_forms(experiences + 20 * BATCH) as forms:
        wrote = {name: taken(partial(form.write, *data)) for name, form in forms.items()}
        few = {
            name: statistics.median(taken(partial(form.write, *data[:, :BATCH])) for _ in range(20))
            for name, form in forms.items()
        }
        times: dict[tuple[str, str], list[float]] = {}
        for _ in track(range(rounds), "Rounds"):
            for name, form in forms.items():
                for kind, call in (("uniform", form.sample), ("surprise", form.by_surprise)):
                    if call is not None:
                        call()
                        spent = taken(partial(repeated, call, calls))
                        times.setdefault((name, kind), []).append(1e6 * spent / calls)
    for name in forms:
        found = [times.get((name, kind)) for kind in ("uniform", "surprise")]
        spent = [f"{statistics.median(one):.0f} ({min(one):.0f})" if one else "" for one in found]
        yield f"| {name} | {' | '.join(spent)} | {1e3 * wrote[name]:.0f} | {1e3 * few[name]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--experiences", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = list(rows(arguments.experiences, arguments.rounds, arguments.calls))
    print(f"\n{BATCH} of {arguments.experiences:,}: microseconds, median of rounds (fastest round):\n")
    print(f"| form | sample | by surprise, and update | write all, ms | write {BATCH}, ms |")
    print("|---|---|---|---|---|\n" + "\n".join(table))


if __name__ == "__main__":
    main()
