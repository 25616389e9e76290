"""A Hugging Face model with an attached memory: told facts, asked later, corrected, and made to forget.

A Llama of two layers and 64 tokens learns to answer what was told before. A fact is a name and a value; a
sentence tells one, somewhere among words that say nothing; a question is other words, and a name at the end.
Each sentence is a pass of its own, and so is each question: only the memory has the answer. Each document
binds other values to the names, so that nothing can be learned by heart.

What is written carries no gradient: questions within a segment are what teaches the lower layer to write what
can be asked for. And a record is found by what stood before it: a value that comes after its name has the
name in its key. Without those questions, and with values before names, the same training is an ablation.

Then, with a store: facts told in one process and asked in another, which has the files alone; one fact of
eight told anew with another value, and one erased; and whether the others stay as they were. The full form
also asks a model that learned without a memory, which is attached to it afterwards.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import mnemos
from mnemos.progress import Advance, between
from mnemos.studies.attached_models import LAYER, attached, other_ways, recall, train
from mnemos.studies.study import Study, Threshold
from mnemos.studies.told_facts import FACTS, NAMES, VALUES, Facts, answers, draw_facts, questions, tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CHANCE = 1 / VALUES


def corrections(model: Any, learned: Mapping[str, Tensor], documents: int, seed: int) -> dict[str, float]:
    """Facts told one by one into a store; then one is told anew with another value, then one is erased."""
    generator = torch.Generator().manual_seed(20_000 + seed)
    found: dict[str, list[float]] = {}
    for number in range(documents):
        facts = draw_facts(1, generator)
        names, values = facts.names[0], facts.values[0]
        asked = questions(facts.names, generator)[0]
        corrected, erased = number % FACTS, (number + 1) % FACTS
        other = (values[corrected] - NAMES + 1) % VALUES + NAMES
        with mnemos.open(":memory:") as store:
            attachment = attached(model, "attention", shared=True, store=store)
            attachment.load_state_dict(learned)
            tell(model, attachment, facts, generator)
            before = answers(model, asked)
            store.delete(where={"source": int(names[corrected])})
            attachment.reload()
            tell(model, attachment, Facts(names[corrected].view(1, 1), other.view(1, 1)), generator)
            after = answers(model, asked)
            store.delete(where={"source": int(names[erased])})
            attachment.reload()
            last = answers(model, asked)
            attachment.detach()
        results = {
            "told": before == values,
            "edited": after[corrected] == other,
            "edit_locality": _without(after == before, corrected),
            "erased": last[erased] == values[erased],
            "erase_locality": _without(last == after, erased),
        }
        for name, right in results.items():
            found.setdefault(name, []).append(right.double().mean().item())
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def _without(x: Tensor, place: int) -> Tensor:
    return torch.cat([x[:place], x[place + 1 :]])


def other_process(model: Any, learned: Mapping[str, Tensor], seed: int) -> dict[str, float]:
    """A fact of every name told here, and asked in a process that has only the folder."""
    generator = torch.Generator().manual_seed(30_000 + seed)
    facts = draw_facts(1, generator, NAMES)
    asked = questions(facts.names, generator)[0]
    with tempfile.TemporaryDirectory() as folder:
        attachment = attached(model, "attention", shared=True)
        attachment.load_state_dict(learned)
        tell(model, attachment, facts, generator)
        here = answers(model, asked)
        model.save_pretrained(folder)
        attachment.detach()
        program = "import sys; from mnemos.studies import attach; attach.answers_of_folder(*sys.argv[1:])"
        command = [sys.executable, "-c", program, folder, json.dumps(asked.tolist())]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    there, detached = (torch.tensor(said) for said in json.loads(run.stdout.splitlines()[-1]))
    return {
        "other_process": (there == facts.values[0]).double().mean().item(),
        "other_process_same": (there == here).double().mean().item(),
        "other_process_detached": (detached == facts.values[0]).double().mean().item(),
    }


def answers_of_folder(folder: str, asked: str) -> None:
    """Prints what the model in a folder says to questions, with the memory beside it and without."""
    from mnemos.models.hugging_face.surface import load_model

    model, tokens = load_model(folder), torch.tensor(json.loads(asked))
    detached = answers(model, tokens)
    mnemos.Attachment.from_pretrained(model, Path(folder) / "memory")
    print(json.dumps([answers(model, tokens).tolist(), detached.tolist()]))


def measure(
    seed: int, full: bool, advance: Advance, steps: int = 1200, documents: int = 100
) -> dict[str, Any]:
    share = 0.2 if full else 0.9
    model, attachment = train("attention", steps, seed, between(advance, 0.0, share))
    attachment.forget_reads()
    measured: dict[str, Any] = {
        "steps": steps,
        "chance": CHANCE,
        "recall": recall(model, attachment, 4 * documents, seed),
        "report": attachment.report()[LAYER],
        "recall_at_once": recall(model, attachment, 4 * documents, seed, at_once=True),
        "recall_of_32": recall(model, attachment, documents, seed, facts=NAMES),
        "recall_of_32_at_once": recall(model, attachment, documents, seed, facts=NAMES, at_once=True),
    }
    learned = {name: tensor.clone() for name, tensor in attachment.state_dict().items()}
    attachment.detach()
    generator = torch.Generator().manual_seed(10_000 + seed)
    facts = draw_facts(4 * documents, generator)
    said = answers(model, questions(facts.names, generator).flatten(0, 1))
    measured["recall_detached"] = (said == facts.values.flatten()).double().mean().item()
    advance(share, "told in a store, corrected, erased, and asked in another process")
    measured |= corrections(model, learned, documents, seed)
    measured |= other_process(model, learned, seed)
    if full:
        measured |= other_ways(steps, 4 * documents, seed, between(advance, share, 1.0))
    return measured


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The shares of right answers, beside chance."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, drawing

    bars = {
        "8 facts, asked later": ("recall", WITH),
        "32 facts, asked later": ("recall_of_32", WITH),
        "32 facts, asked in another process": ("other_process", WITH),
        "32 facts, told in one pass": ("recall_of_32_at_once", WITH),
        "the memory detached": ("recall_detached", WITHOUT),
        "told anew: the new value": ("edited", WITH),
        "erased: the old value": ("erased", WITHOUT),
        "other facts' answers stay": ("edit_locality", WITH),
    }
    with drawing(height=2.9) as (figure, [axes]):
        places = range(len(bars), 0, -1)
        axes.barh(
            places,
            [100 * measured[name] for name, _ in bars.values()],
            color=[c for _, c in bars.values()],
            height=0.6,
        )
        axes.set_yticks(places, [f"{text}: {100 * measured[name]:.0f} %" for text, (name, _) in bars.items()])
        axes.axvline(100 * CHANCE, color=FAINT, linewidth=1.2)
        axes.set_xlim(0, 100)
        axes.set_xlabel("answers, % (the line is chance)")
    return figure


STUDY = Study(
    name="attach",
    title="An attached memory: told facts, asked in a later segment or process, corrected, erased",
    measure=measure,
    thresholds={
        "recall": Threshold(">=", 0.9),
        "recall_at_once": Threshold(">=", 0.9),
        "recall_detached": Threshold("<=", CHANCE + 0.05),
        "told": Threshold(">=", 0.9),
        "edited": Threshold(">=", 0.9),
        "edit_locality": Threshold(">=", 0.95),
        "erased": Threshold("<=", CHANCE + 0.1),
        "erase_locality": Threshold(">=", 0.95),
        "other_process": Threshold(">=", 0.9),
        "other_process_same": Threshold("==", 1.0),
    },
    paper=[],
    draw=draw,
)
