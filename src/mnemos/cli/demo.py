"""`mnemos demo`: the main job from end to end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mnemos.cli.terminal import Json, Terminal, answering
from mnemos.progress import Advance

if TYPE_CHECKING:
    from mnemos.demo.results import Results


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: mnemos demo --folder demo --seconds 120")(demo)


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="How long to train.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Shows all of it on real text; writes report.html.

    A network is trained, reads, is killed, comes back, recalls, is corrected and forgets. Stopped, it
    goes on with the step that it was in. Ends with code 1 if a result is not as expected.
    """
    with answering(json) as terminal:
        terminal.errors.print("importing torch and Lightning", style="dim")
        from mnemos.demo.plan import Plan
        from mnemos.demo.run import run

        plan = Plan(folder, seconds=seconds, seed=seed)
        results = run(plan, _command(), lambda title: _watch(terminal, title))
        facts = {**asdict(results), "passed": results.passed, "report": str(plan.report)}
        terminal.show(facts, _page(results), _advice(plan.folder))
        if not results.passed:
            raise typer.Exit(1)


def _command() -> str:
    return " ".join(["mnemos", *sys.argv[1:]])


@contextmanager
def _watch(terminal: Terminal, title: str) -> Iterator[Advance]:
    """Says which step begins, and shows how far it is."""
    terminal.errors.print(f"The network [bold]{title}[/]")
    with terminal.progress("") as advance:
        yield advance


def _page(results: "Results") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for name in ("", "the network", "measured", "expected"):
        table.add_column(name, overflow="fold")
    for title, verdict in results.verdicts():
        if verdict is not None:
            mark = Text("pass", "bold green") if verdict.passed else Text("FAIL", "bold red")
            table.add_row(mark, title, Text(verdict.measured), Text(verdict.expected, "dim"))
    return table


def _advice(folder: Path) -> str:
    return (
        f"Look at {folder}/report.html, and ask the memory yourself:\n"
        f'  mnemos recall {folder}/model {folder}/memory "If the header is"'
    )
