"""Commands of a language model with a memory: train, read, recall, correct."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from mnemos.cli.stores import StorePath
from mnemos.cli.terminal import Json, answering, existing

if TYPE_CHECKING:
    from mnemos.models.checkpoint import LanguageModel
    from mnemos.models.mixture import Mixture
    from mnemos.models.recollection import Recollection
    from mnemos.stores.base import Store
    from mnemos.tasks.text import Document

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the language model.")]
Namespace = Annotated[str, typer.Option(help="Which part of the memory; parts never answer for each other.")]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: mnemos read model notes.memory texts/ letter.txt")(read)
    app.command(epilog='Example: mnemos recall model notes.memory "The header is"')(recall)
    app.command(epilog='Example: mnemos correct model notes.memory "The header is" " optional"')(correct)
    app.command(epilog="Example: mnemos tune model notes.memory held-out/")(tune)


def train(
    model: ModelPath,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="Text files and folders; the Python language reference if none is given."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to train.")] = 120.0,
    steps: Annotated[int | None, typer.Option(help="Or how many steps, whichever ends first.")] = None,
    vocabulary: Annotated[int, typer.Option(help="Tokens, at least 256.")] = 1024,
    width: Annotated[int, typer.Option(help="Width of the model, a multiple of 8.")] = 128,
    layers: Annotated[
        str, typer.Option(help="How many layers of attention, or a name for each: 'gated-delta attention'.")
    ] = "2",
    resume: Annotated[bool, typer.Option(help="Go on from where an earlier run was stopped.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Trains a small language model on text.

    Run again, it goes on from where it was stopped.
    """
    with answering(json) as terminal:
        documents = documents_of(files)
        import torch

        from mnemos.models.hybrid import hybrid
        from mnemos.tasks.text import train_tokenizer
        from mnemos.training import TrainingConfig, train_language_model

        torch.manual_seed(seed)
        tokenizer = train_tokenizer(documents, vocabulary)
        names = ["attention"] * int(layers) if layers.isdigit() else layers
        network = hybrid(tokenizer.get_vocab_size() + 1, names, width=width)
        config = TrainingConfig(steps=steps, seconds=seconds, seed=seed)
        started = time.perf_counter()
        with terminal.progress("training") as advance:
            whole = train_language_model(
                network,
                tokenizer,
                documents,
                model,
                config,
                resume=resume,
                progress=False,
                advance=advance,
            )
        facts = {
            "model": str(model),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "vocabulary": network.vocabulary_size,
            "documents": len(documents),
            "seconds": time.perf_counter() - started,
            "fingerprint": whole.fingerprint,
        }
        terminal.show(
            facts,
            f"Trained {facts['parameters']:,} parameters on {len(documents):,} documents in "
            f"{facts['seconds']:.0f} s: {model}",
        )


def read(
    model: ModelPath,
    store: StorePath,
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Text files and folders to read.")],
    namespace: Namespace = "default",
    score: Annotated[
        bool, typer.Option(help="Ask the memory about each text before it is read, which takes longer.")
    ] = True,
    json: Json = False,
) -> None:
    """Reads documents into a durable memory.

    No weight changes. Run again, it goes on where it stopped. Reports bits per byte of the text as it
    comes: by the model alone, and with what was read before.
    """
    with answering(json) as terminal:
        documents = documents_of(files)
        from mnemos.models.checkpoint import load_model
        from mnemos.models.reading import read_all, totals
        from mnemos.models.tuning import load_mixture

        language_model = load_model(model)
        mixture = load_mixture(model, language_model.model.width) if score else None
        with (
            memory_of(store, language_model) as memory,
            terminal.progress("reading") as advance,
        ):
            found = memory.count()
            points = []
            for point in read_all(language_model, memory, documents, mixture, namespace=namespace):
                points.append(point)
                advance(
                    point.share, f"{point.without:.2f} to {point.with_memory:.2f} bits/byte  {point.source}"
                )
            facts = {
                "store": str(store),
                "found": found,
                **totals(points)._asdict(),
                "holds": memory.count(),
            }
        terminal.show(facts, _reading_page(facts, len(documents)))


def recall(
    model: ModelPath,
    store: StorePath,
    phrase: Annotated[
        str,
        typer.Argument(metavar="PHRASE", help="How a text begins; spaces at its end are left out."),
    ],
    show: Annotated[int, typer.Option(help="How many records to show.")] = 5,
    tokens: Annotated[int, typer.Option(help="How far to go on, in tokens.")] = 8,
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Shows what answers a phrase, and from where.

    Of each record that answers: its text, source, line, distance, age and use.
    """
    with answering(json) as terminal, _asked(model, store) as (language_model, memory, mixture):
        from mnemos.models.recollection import recall as ask

        found = ask(
            language_model, memory, phrase.rstrip(" "), mixture, show=show, tokens=tokens, namespace=namespace
        )
        facts = {**found._asdict(), "answers": [answer._asdict() for answer in found.answers]}
        terminal.show(facts, *_recall_page(found))


def correct(
    model: ModelPath,
    store: StorePath,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="How a text goes, up to the wrong answer.")],
    answer: Annotated[
        str, typer.Argument(metavar="ANSWER", help="The right one, with the space that it begins with.")
    ],
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Corrects what the memory answers to a phrase.

    Changes as few records as it takes, nearest first.
    """
    with answering(json) as terminal, _asked(model, store) as (language_model, memory, mixture):
        from mnemos.models.recollection import correct as change

        made = change(language_model, memory, phrase.rstrip(" "), answer, mixture, namespace=namespace)
        terminal.show(
            made._asdict(),
            f"{made.before!r} became {made.after!r}: {len(made.changed)} records changed, "
            f"{len(made.written)} written.",
        )


def tune(
    model: ModelPath,
    store: StorePath,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Texts that model and memory have not seen; a folder is one kind."
        ),
    ],
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Fits how much the memory counts.

    On text that is in neither model nor memory; the fit is kept in the model's folder.
    """
    with answering(json) as terminal:
        groups = [documents_of([file]) for file in files]
        from mnemos.models.checkpoint import load_model
        from mnemos.models.tuning import save_mixture
        from mnemos.models.tuning import tune as fit

        language_model = load_model(model)
        with memory_of(store, language_model, must_exist=True) as memory, terminal.waiting("fitting"):
            mixture = fit(language_model, memory, groups, namespace=namespace)
        save_mixture(model, mixture)
        facts = asdict(mixture)
        terminal.show(facts, ", ".join(f"{name} {value:.3g}" for name, value in facts.items()))


def documents_of(files: list[Path] | None) -> "list[Document]":
    """The texts of files and folders; the Python language reference if none are given."""
    from mnemos.tasks.text import python_reference, read_documents

    return read_documents(files) if files else python_reference()


def memory_of(store: Path, language_model: "LanguageModel", must_exist: bool = False) -> "Store":
    """The store of a model, open."""
    import mnemos

    if must_exist:
        existing(store, "store")
    return mnemos.open(store, metric="euclidean", fingerprint=language_model.fingerprint)


@contextmanager
def _asked(model: Path, store: Path) -> "Iterator[tuple[LanguageModel, Store, Mixture]]":
    """What a question needs: the model, its memory, and how much that counts."""
    from mnemos.models.checkpoint import load_model
    from mnemos.models.tuning import load_mixture

    existing(store, "store")
    language_model = load_model(model)
    with memory_of(store, language_model) as memory:
        yield language_model, memory, load_mixture(model, language_model.model.width)


def _reading_page(facts: dict[str, Any], documents: int) -> str:
    if not facts["records"]:
        return f"Nothing new: all {documents:,} documents had been read. {facts['holds']:,} records."
    went_on = f", after the {facts['found']:,} that were there" if facts["found"] else ""
    return (
        f"Read {facts['bytes_read']:,} bytes of {facts['documents']:,} documents into "
        f"{facts['records']:,} records{went_on}.\n"
        f"Bits per byte as the text came: {facts['without']:.3f} by the model alone, "
        f"{facts['with_memory']:.3f} with what was read before."
    )


def _recall_page(found: "Recollection") -> list[RenderableType]:
    said = Text(found.phrase)
    said.append(found.continuation, style="bold blue")
    counts = f"The memory counts for {found.weight:.0%} here; the model alone would say {found.alone!r}."
    page: list[RenderableType] = [said, Text(counts, style="dim")]
    for answer in found.answers:
        where = Text(f"\n{answer.source}:{answer.line}", style="bold")
        facts = (
            f"  token {answer.position:,}, distance {answer.distance:.2f}, counts {answer.share:.0%}, "
            f"{age(answer.age)} old, read {answer.times_read} times, id {answer.id}"
        )
        where.append(facts, style="not bold dim")
        snippet = Text("  " + _one_line(answer.before))
        snippet.append(_one_line(answer.token), style="bold blue")
        snippet.append(_one_line(answer.after))
        page += [where, snippet]
    return page if found.answers else [*page, "Nothing is remembered."]


def _one_line(text: str) -> str:
    return text.replace("\n", "⏎")


def age(seconds: float) -> str:
    """A time for people: its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
