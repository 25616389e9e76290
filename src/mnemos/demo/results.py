"""What the demo measured: one small dataclass per step, kept together as results.json."""

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

LEAST_FALL = 0.40  # of the perplexity on unseen text of the new domain
LEAST_KEPT = 0.5  # of what the memory saves there, in nats a token, after sleep and without the memory
MOST_LOST = 0.02  # of the perplexity on the old domain


class Verdict(NamedTuple):
    """One line of the closing table."""

    passed: bool
    measured: str
    expected: str


@dataclass(frozen=True)
class Trained:
    """Step 1: a small language model on domain A. Perplexities are per token."""

    seconds: float
    steps: int
    parameters: int
    vocabulary: int
    files: int
    bytes: int
    losses: list[list[Any]]  # [step, nats per token]
    perplexity: float  # on unseen text of A
    unigram: float  # what the frequencies of the training tokens alone would score there

    def verdict(self) -> Verdict:
        return Verdict(
            self.perplexity < self.unigram,
            f"perplexity {self.perplexity:.1f} on unseen text of A after {self.seconds:.0f} s",
            f"below the unigram model's {self.unigram:.1f}",
        )


@dataclass(frozen=True)
class Learned:
    """Step 2: domain B read into a store without a gradient step, beside fine-tuning for as long.

    Args:
        seconds: what reading took; fine-tuning was given as long.
        growth: as reading went: {bytes_read, records, disk, without, with_memory}, bits per byte.
        curve: against the share of the store: {share, records, a, b}, perplexities.
        along: along the unseen text of B: {bytes, without, with_memory}, nats per token smoothed.
        duplicates: lines of the unseen text of B that also stand in what was read, of `lines`.
    """

    seconds: float
    files: int
    bytes: int
    records: int
    disk: int
    a_without: float
    a_with: float
    a_tuned: float
    b_without: float
    b_with: float
    b_tuned: float
    tuning_seconds: float
    tuning_steps: int
    duplicates: int
    lines: int
    growth: list[dict[str, Any]]
    curve: list[dict[str, Any]]
    along: list[dict[str, Any]]

    @property
    def fall(self) -> float:
        return 1 - self.b_with / self.b_without

    def verdict(self) -> Verdict:
        return Verdict(
            self.fall >= LEAST_FALL and self.a_with <= self.a_without,
            f"perplexity on B {self.b_without:.1f} to {self.b_with:.1f} ({-self.fall:+.0%}), "
            f"on A {self.a_without:.1f} to {self.a_with:.1f}",
            f"B at least {LEAST_FALL:.0%} lower, A not higher",
        )


@dataclass(frozen=True)
class Resumed:
    """Step 3: the same reading, killed and started again."""

    killed_at: int  # records acknowledged when the process was killed
    resumed_at: int  # records that the second process found
    records: int
    differing: int  # records that are not those of the uninterrupted run, bit for bit
    perplexity: float
    uninterrupted: float
    faults: list[str]

    def verdict(self) -> Verdict:
        same = self.differing == 0 and self.perplexity == self.uninterrupted
        return Verdict(
            same and not self.faults and 0 < self.killed_at <= self.resumed_at < self.records,
            f"killed at {self.killed_at:,} of {self.records:,} records, went on at {self.resumed_at:,}; "
            f"{self.differing} records differ, perplexity {self.perplexity:.4f} and {self.uninterrupted:.4f}",
            "killed midway, 0 differ, the same perplexity",
        )


@dataclass(frozen=True)
class Recalled:
    """Step 4: phrases answered by a new process.

    Each answer is a `mnemos.models.Recollection` as a dictionary, and how the text itself goes on,
    under "truth".
    """

    answers: list[dict[str, Any]]
    same_as_first_process: bool
    traced: int  # records whose text stands in the named file on the named line
    shown: int

    def verdict(self) -> Verdict:
        return Verdict(
            self.same_as_first_process and 0 < self.shown == self.traced,
            f"{self.traced} of {self.shown} records found in their file on their line; "
            f"{'the same' if self.same_as_first_process else 'other'} answers as before the restart",
            "every record traced, the same answers",
        )


@dataclass(frozen=True)
class Forgotten:
    """Step 5: a correction, and a document forgotten.

    The document's score is its perplexity: `alone` asks only the memory of this document, `whole` the
    whole memory, `never` a memory that never read it.
    """

    phrase: str
    answer_before: str
    answer_after: str
    correction: str
    document: str
    records: int
    returned_before: int  # of the nearest records for the document's own text
    returned_after: int
    keys_before: int  # keys of the document found in the raw bytes of the files
    keys_after: int
    keys_sought: int
    bytes_freed: int
    without: float
    alone_before: float
    alone_after: float
    whole_before: float
    whole_after: float
    never: float

    def verdict(self) -> Verdict:
        corrected = self.answer_before != self.answer_after == self.correction
        erased = self.returned_before > 0 and self.returned_after == 0 == self.keys_after
        found = 0 < self.keys_before == self.keys_sought
        back = self.alone_after == self.without and self.whole_after == self.never
        return Verdict(
            corrected and erased and found and back and self.alone_before < self.without,
            f"answer {self.answer_before!r} became {self.answer_after!r}; {self.keys_before:,} keys in "
            f"the files became {self.keys_after}; perplexity {self.alone_before:.1f} to "
            f"{self.alone_after:.1f}",
            f"{self.correction!r}, 0 keys, {self.without:.1f} as without memory",
        )


@dataclass(frozen=True)
class Evicted:
    """Step 6: half of the store let go by each policy: {policy, records, disk, b, seconds}."""

    records: int
    b_full: float
    b_without: float
    policies: list[dict[str, Any]]  # never none

    def verdict(self) -> Verdict:
        half = self.records // 2
        costs = [policy["b"] for policy in self.policies]
        kept = all(policy["records"] == half for policy in self.policies)
        return Verdict(
            kept and max(costs) < self.b_without,
            f"perplexity on B {min(costs):.1f} to {max(costs):.1f} with half the records, "
            f"{self.b_full:.1f} with all",
            f"each keeps {half:,}, all below {self.b_without:.1f}",
        )


@dataclass(frozen=True)
class Slept:
    """Step 7: the memory replayed into the weights. Perplexities of models alone, but for `b_with`."""

    seconds: float
    a_before: float
    a_after: float
    b_before: float
    b_with: float  # of the model before, with the memory
    b_after: float

    @property
    def kept(self) -> float:
        """The share of what the memory saves that the weights save after sleep."""
        return math.log(self.b_before / self.b_after) / math.log(self.b_before / self.b_with)

    def verdict(self) -> Verdict:
        return Verdict(
            self.kept >= LEAST_KEPT and self.a_after <= (1 + MOST_LOST) * self.a_before,
            f"without the memory {self.kept:.0%} of what it saved on B stay: perplexity "
            f"{self.b_before:.1f} to {self.b_after:.1f}; on A {self.a_before:.1f} to {self.a_after:.1f}",
            f"at least {LEAST_KEPT:.0%}; A at most {MOST_LOST:.0%} higher",
        )


@dataclass
class Results:
    """All of it, and what is needed to make it again."""

    command: str
    machine: str
    date: str
    seed: int
    plan: dict[str, Any]  # what the run was given, but for its folder
    trained: Trained | None = None
    learned: Learned | None = None
    resumed: Resumed | None = None
    recalled: Recalled | None = None
    forgotten: Forgotten | None = None
    evicted: Evicted | None = None
    slept: Slept | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # of each step

    def verdicts(self) -> list[tuple[str, Verdict | None]]:
        """(what the step does, how it went) in order; None where a step has not run."""
        return [
            (title, None if (step := getattr(self, name)) is None else step.verdict())
            for name, title in STEPS.items()
        ]

    def done(self, name: str) -> Any:
        """What a step measured that later ones build on."""
        if (step := getattr(self, name)) is None:
            raise ValueError(f"the step that {STEPS[name]} has not run")
        return step

    @property
    def finished(self) -> bool:
        return all(getattr(self, name) is not None for name in STEPS)

    @property
    def passed(self) -> bool:
        return all(verdict is not None and verdict.passed for _, verdict in self.verdicts())

    def save(self, path: Path) -> None:
        """Writes the file anew; a reader never sees half of it."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(fresh, path)


STEPS = {
    "trained": "trains on domain A",
    "learned": "reads domain B without a gradient step",
    "resumed": "is killed, and goes on",
    "recalled": "recalls, and says from where",
    "forgotten": "corrects itself, and forgets",
    "evicted": "lets go of half, by each policy",
    "slept": "sleeps, until the memory can be dropped",
}
_KINDS = (Trained, Learned, Resumed, Recalled, Forgotten, Evicted, Slept)


def load(path: Path) -> Results:
    """What `Results.save` wrote."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    for name, kind in zip(STEPS, _KINDS, strict=True):
        if facts.get(name) is not None:
            facts[name] = kind(**facts[name])
    known = {part.name for part in fields(Results)}
    return Results(**{name: value for name, value in facts.items() if name in known})
