"""State spaces: what comes of letting the input choose.

Gu & Dao 2023 claim that a state space whose step size, input and output depend on the input copies the tokens
among noise, which one with fixed lags cannot, and that it learns what an induction head does at 256 steps and
does it at a length a thousand times greater. Here two layers learn to copy 16 tokens among 256 steps, with
either memory in the very same network; and with fixed lags alone, since between a convolution and a gate they
are fixed no more. And they learn to answer what followed a mark at 64 to 256 steps, tried at up to 16,384.
Before that, the convolution is held to the recurrence, and the scan to the loop.

What is to be copied grows by one token as soon as as many are copied well. Half of the sequences have as many
as that, the others fewer, among up to 16 times as many steps. For the induction head sequences grow during
the first third of the training. The paper teaches for 400,000 and 200,000 steps.

What is passed over at 256 steps must leak 64 times less at 16,384, and nothing in the training asks for that.
The paper's steps begin at 0.001 to 0.1, and training has then to bring those of all tokens but one near zero.
Here the network that is tried at 16,384 begins with steps that forget nothing over that length.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mnemos.memories import S4D, Memory, SelectiveStateSpace
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer, feed_forward_of
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.selective import InductionHeads, SelectiveCopying
from mnemos.tasks.sequences import drawn
from mnemos.tasks.task import Batch, TokenTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

VOCABULARY = 16  # of both tasks
GROWING = 0.3  # the share of the training in which sequences grow to their greatest size
COPIED = 0.97  # the share of right answers with which one more token is to be copied


class Form(NamedTuple):
    """How large the experiment is."""

    width: int = 128
    layers: int = 2
    items: int = 16
    apart: int = 16  # steps for each item, at most
    copying_steps: int = 12_000
    induction_steps: int = 1500
    step_range: tuple[float, float] = (1e-7, 1e-5)  # that induction begins with
    taught: int = 256  # the greatest length that induction is taught at
    factors: tuple[int, ...] = (1, 4, 16, 32, 64)  # of that, for trying it
    copying_tokens: int = 1024  # of a batch
    induction_tokens: int = 4096
    tried: int = 400  # sequences of each kind


SHORT, FULL = Form(), Form(copying_steps=40_000, induction_steps=5000, tried=1000)


def network(memory: Callable[[], Memory], form: Form) -> Transformer:
    """The same decoder around one kind of memory or the other."""
    layers = [memory() for _ in range(form.layers)]
    return Transformer(VOCABULARY, layers, feed_forward_of(form.width), form.taught)


Network = Callable[[Tensor], tuple[Tensor, Any]]  # tokens to logits
# By the share of the training done and the share of right answers to the last batch.
Lesson = Callable[[float, float, torch.Generator], tuple[TokenTask, Batch]]


def copying(form: Form) -> Lesson:
    """Of as many items as are being learned, or fewer, near each other or far apart."""
    most = items = 1

    def lesson(share: float, right: float, generator: torch.Generator) -> tuple[TokenTask, Batch]:
        nonlocal most, items
        if items == most and right >= COPIED:
            most = min(most + 1, form.items)
        items = most if drawn((0, 1), generator) else drawn((1, most), generator)
        apart = min(2 ** drawn((0, form.apart.bit_length() - 1), generator), form.apart)
        task = SelectiveCopying(VOCABULARY, items * apart, items)
        return task, task.tokens(max(1, min(64, form.copying_tokens // task.length)), generator)

    return lesson


def induction(form: Form) -> Lesson:
    """Of lengths from a quarter of the greatest to the greatest, which grows from 8."""

    def lesson(share: float, right: float, generator: torch.Generator) -> tuple[TokenTask, Batch]:
        most = round(8 * (form.taught / 8) ** min(1.0, share / GROWING))
        task = InductionHeads(VOCABULARY, (max(3, most // 4), most))
        return task, task.tokens(max(1, min(128, form.induction_tokens // most)), generator)

    return lesson


def teach(decoder: Transformer, lesson: Lesson, steps: int, seed: int, advance: Advance) -> None:
    """The same rule decides what every network is given."""
    generator = torch.Generator().manual_seed(seed)
    right = 0.0

    def loss(step: int) -> Tensor:
        nonlocal right
        task, batch = lesson(step / steps, right, generator)
        logits, _ = decoder(batch.inputs)
        right = 1 - task.error(logits.detach(), batch)
        return task.loss(logits, batch)

    fit(decoder, loss, steps, learning_rate=5e-3, inertia=0.99, advance=advance)


@torch.no_grad()
def hits(decoder: Network, task: TokenTask, tried: int, seed: int) -> list[float]:
    """The share of right answers by their place among the answers of a sequence, on unseen sequences."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    right = []
    for _ in range(-(-tried // 4)):
        batch = task.tokens(4, generator)
        answers = decoder(batch.inputs)[0].argmax(2)
        right.append((answers == batch.targets)[batch.scored].view(len(answers), -1))
    return torch.cat(right).double().mean(0).tolist()


def measure(seed: int, full: bool, advance: Advance, form: Form | None = None) -> dict[str, Any]:
    form = form or (FULL if full else SHORT)
    return {
        **forms_apart(seed),
        **_copied(form, seed, between(advance, 0.0, 0.7)),
        **_induced(form, seed, between(advance, 0.7, 1.0)),
    }


def _copied(form: Form, seed: int, advance: Advance) -> dict[str, Any]:
    kinds: dict[str, Callable[[], Memory]] = {
        "selective": lambda: Mixer(SelectiveStateSpace(form.width)),
        "s4d": lambda: Mixer(S4D(form.width)),
        "s4d_alone": lambda: S4D(form.width),
    }
    greatest = SelectiveCopying(VOCABULARY, form.items * form.apart, form.items)
    measured: dict[str, Any] = {"items": form.items, "copying_length": greatest.length}
    by_place: dict[str, list[float]] = {}
    for number, (kind, memory) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        copier = network(memory, form)
        progress = between(advance, number / len(kinds), (number + 1) / len(kinds))
        teach(copier, copying(form), form.copying_steps, seed, progress)
        by_place[kind] = hits(copier, greatest, form.tried, seed)
        measured[f"copied_by_{kind}"] = sum(by_place[kind]) / form.items
        measured[f"parameters_with_{kind}"] = sum(parameter.numel() for parameter in copier.parameters())
    return measured | {"copied_by_place": by_place}


def _induced(form: Form, seed: int, advance: Advance) -> dict[str, Any]:
    torch.manual_seed(seed)
    inducer = network(lambda: Mixer(SelectiveStateSpace(form.width, step_range=form.step_range)), form)
    teach(inducer, induction(form), form.induction_steps, seed, between(advance, 0.0, 0.7))
    by_length = {}
    for number, factor in enumerate(form.factors):
        length = factor * form.taught
        task = InductionHeads(VOCABULARY, (length, length))
        (by_length[str(length)],) = hits(inducer, task, form.tried, seed)
        advance(0.7 + 0.3 * (number + 1) / len(form.factors), f"length {length}")
    return {
        "induced_by_length": by_length,
        "induced_as_taught": by_length[str(form.taught)],
        "longest": form.taught * max(form.factors),
        "induced_at_worst": min(by_length.values()),
    }


def forms_apart(seed: int, time: int = 1000) -> dict[str, float]:
    """How far the fast forms are from their loops, values and gradients, relative to the greatest number."""
    torch.manual_seed(seed)
    inputs = torch.randn(2, time, 8, requires_grad=True)
    measured = {}
    for name, memory in (("convolution", S4D(8)), ("scan", SelectiveStateSpace(8))):
        found = []
        for naive in (False, True):
            memory.naive = naive
            outputs, state = memory(inputs)
            leaves = [inputs, *memory.parameters()]
            slopes = torch.autograd.grad(outputs.sin().sum() + state.states.sum(), leaves)
            found.append([outputs, state.states, *slopes])
        apart = [
            ((x - y).abs().max() / y.abs().max().clamp_min(1)).item() for x, y in zip(*found, strict=True)
        ]
        measured[f"{name}_difference"] = max(apart)
    return measured


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Left: the share of items copied, by their place. Right: induction at lengths never taught."""
    from mnemos.report import drawing  # late: it brings matplotlib

    names = {
        "selective": ("selective", drawing.WITH),
        "s4d": ("S4D, gated", drawing.TUNED),
        "s4d_alone": ("S4D", drawing.WITHOUT),
    }
    with drawing.drawing(2.6, columns=2) as (figure, (copied, induced)):
        for kind, (text, colour) in names.items():
            shares = {str(place + 1): share for place, share in enumerate(measured["copied_by_place"][kind])}
            drawing.curve(copied, shares, text, colour)
        copied.set_xticks(range(0, len(shares) + 1, 4))
        copied.set(title="Copied among noise", xlabel="place of the item", ylabel="% right", ylim=(0, 103))
        lengths = [int(length) for length in measured["induced_by_length"]]
        drawing.curve(induced, measured["induced_by_length"], "", drawing.WITH)
        induced.axvline(lengths[0], color=drawing.INK, linewidth=0.8, linestyle=":")
        induced.set(
            title="What followed a mark", xlabel="length (taught up to the dotted line)", ylim=(0, 103)
        )
        induced.set_xscale("log", base=2)
        shown = lengths[::-2]  # so that they find room
        induced.set_xticks(shown, [f"{length:,}" for length in shown])
    return figure


PAPER = "Gu & Dao 2023"
STUDY = Study(
    name="state-space",
    title="A state space that chooses copies among noise, and reaches 64 times its length (Gu & Dao 2023)",
    measure=measure,
    thresholds={
        "convolution_difference": Threshold("<=", 1e-4),
        "scan_difference": Threshold("<=", 1e-4),
        "copied_by_selective": Threshold(">=", 0.99),
        "copied_by_s4d_alone": Threshold("<=", 0.6),
        "induced_as_taught": Threshold(">=", 0.99),
        "induced_at_worst": Threshold(">=", 0.99),
    },
    paper=[
        Figure("selective copying by Mamba, 16 tokens among 4,096, %", 99.8, f"{PAPER}, table 1"),
        Figure("selective copying by S4 without a gate, %", 18.3, f"{PAPER}, table 1"),
        Figure("selective copying by S4 in Mamba's block, %", 56.4, f"{PAPER}, table 1"),
        Figure("induction heads, taught at 256, longest right throughout", "2^20", f"{PAPER}, table 2"),
    ],
    draw=draw,
)
