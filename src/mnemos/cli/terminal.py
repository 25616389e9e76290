"""What every command shares: a page or one JSON object, progress on stderr, errors without tracebacks."""

import errno
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mnemos.progress import Advance
from mnemos.stores.base import StoreError

Json = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object; progress and errors go to stderr.")
]
STOPPED = 130  # what shells report for a program that Ctrl-C ended
DISK = ("disk is full", "disk I/O error")  # SQLite's words
KEPT = "What was acknowledged before is kept; free some space and run again."
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminal:
    """Where one command answers.

    Args:
        json: whether the answer is one JSON object on stdout rather than a page for people.
    """

    def __init__(self, json: bool) -> None:
        self.json = json
        self.page = Console(highlight=False)
        self.errors = Console(stderr=True, highlight=False)

    def show(self, facts: Mapping[str, Any], *page: RenderableType) -> None:
        """The answer, in one form or the other."""
        if self.json:
            typer.echo(json.dumps(plain(facts), ensure_ascii=False, allow_nan=False))
        else:
            for part in page:
                self.page.print(part)

    def refuse(self, sentence: str, code: int) -> typer.Exit:
        """Says why there is no answer, and returns what ends the command."""
        self.errors.print(f"[bold red]mnemos:[/] {escape(sentence)}", soft_wrap=True)
        if self.json:
            typer.echo(json.dumps({"error": sentence}, ensure_ascii=False))
        return typer.Exit(code)

    @contextmanager
    def progress(self, title: str) -> Iterator[Advance]:
        """A bar on stderr while something takes time. It shows only in a terminal."""
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.errors, disable=not self.errors.is_terminal) as bar:
            task = bar.add_task(title, total=1.0, detail="")
            yield lambda share, detail: bar.update(task, completed=share, detail=escape(detail))

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """A spinner on stderr while something takes time that cannot be foreseen."""
        with self.errors.status(title) if self.errors.is_terminal else nullcontext():
            yield


def plain(value: Any) -> Any:
    """The value as JSON has it: what is not a finite number becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@contextmanager
def answering(json: bool) -> Iterator[Terminal]:
    """The frame of a command: what is wrong with its input ends it with a sentence and code 1."""
    terminal = Terminal(json)
    try:
        yield terminal
    except KeyboardInterrupt:
        raise terminal.refuse(
            "stopped. What was acknowledged is kept; the same command goes on from there.", STOPPED
        ) from None
    except _refusals() as error:
        raise terminal.refuse(sentence(error), 1) from None


def _refusals() -> tuple[type[Exception], ...]:
    """What says that something is wrong with the input; anything else is a fault of the program."""
    from mnemos.models.folder import ModelError  # late: it brings all of the models

    return OSError, ValueError, LookupError, ImportError, ModelError, StoreError, sqlite3.Error


def sentence(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, OSError) and error.errno is not None:
        return _system_sentence(error)
    if isinstance(error, StoreError | sqlite3.Error) and any(word in str(error) for word in DISK):
        return f"the disk refused to write: {error}. {KEPT}"
    return str(error.args[0]) if error.args else type(error).__name__


def _system_sentence(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    if error.errno in OUT_OF_SPACE:
        return (
            f"no space left to write{where}. What was acknowledged before is kept; free some and run again."
        )
    if isinstance(error, FileNotFoundError):
        return f"no such file or folder{where}"
    return f"{error.strerror or error}{where}"


def existing(path: Path, what: str) -> Path:
    """The path as it is, or an error that says what was looked for there."""
    if not path.exists():
        raise ValueError(f"there is no {what} at {path}")
    return path
