"""`mnemos ask`: tell a trained network a story, over several calls, and ask it about it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mnemos.cli.terminal import Json, Terminal, answering, sentence

if TYPE_CHECKING:
    from mnemos.models.story import Answerer, Reply
    from mnemos.stores.base import Store

STORY = "story.memory"  # the store, in the network's folder


def register(app: typer.Typer) -> None:
    app.command(epilog='Example: mnemos ask run "Mary went to the kitchen." "Where is Mary?"')(ask)


def ask(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained end-to-end network.")],
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Sentences and questions; lines from stdin if none is given."),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Begin a new story.")] = False,
    json: Json = False,
) -> None:
    """Tells a network sentences, and asks it questions, which end with a question mark.

    What was told lasts: ask in another call. Shows which sentence each hop looked at.
    """
    with answering(json) as terminal:
        import mnemos
        from mnemos.models.story import load_answerer, tell
        from mnemos.tasks.babi import split_words

        answerer = load_answerer(run)
        given = None if text is None else [part for line in text for part in _parts(line)]
        for part in given or []:
            answerer.words.numbers(split_words(part))  # an unknown word, before anything is told
        told: list[str] = []
        replies: list[dict[str, Any]] = []
        with mnemos.open(run / STORY, fingerprint=answerer.fingerprint) as story:
            if forget:
                story.delete(story.ids())
                story.compact()
            for part in _typed(terminal) if given is None else given:
                try:
                    if part.endswith("?"):
                        replies.append(_answered(answerer, story, part, terminal))
                    else:
                        tell(answerer, story, part)
                        told.append(part)
                except LookupError as error:
                    if given is not None or not sys.stdin.isatty():
                        raise
                    terminal.errors.print(sentence(error))  # and the conversation goes on
        said = [] if replies else [f"Told {len(told)} sentence{'' if len(told) == 1 else 's'}."]
        terminal.show({"told": told, "replies": replies}, *said)


def _typed(terminal: Terminal) -> Iterator[str]:
    """What comes on stdin, line by line."""
    if sys.stdin.isatty():
        terminal.errors.print("Tell a sentence, or ask a question that ends with '?'. Ctrl-D ends.")
    for line in sys.stdin:
        yield from _parts(line)


def _parts(line: str) -> list[str]:
    """The sentences and questions of a line, which end with their marks."""
    marked = line.replace("?", "?\n").replace(".", ".\n").splitlines()
    return [part.strip() for part in marked if part.strip()]


def _answered(answerer: "Answerer", story: "Store", question: str, terminal: Terminal) -> dict[str, Any]:
    from mnemos.models.story import reply

    found = reply(answerer, story, question)
    if not terminal.json:
        terminal.page.print(f"[bold]{found.answer}[/]  ({100 * found.probability:.0f} %)", _table(found))
    return {"question": question, **found._asdict()}


def _table(found: "Reply") -> Table:
    """The sentences with the weight that each hop gave them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("sentence", overflow="fold")
    for hop in range(len(found.weights)):
        table.add_column(f"hop {hop + 1}", justify="right")
    for place, text in enumerate(found.sentences):
        shares = [hop[place] for hop in found.weights]
        marked = [f"[bold]{share:.2f}[/]" if share >= 0.5 else f"{share:.2f}" for share in shares]
        table.add_row(text, *marked)
    return table
