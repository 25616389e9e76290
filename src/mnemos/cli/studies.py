"""`mnemos study`: the headline experiments of the published systems, scaled down."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mnemos.cli.terminal import Json, answering

if TYPE_CHECKING:
    from mnemos.studies.study import Outcome, Study


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: mnemos study delta-rule --seed 1")(study)


def study(
    name: Annotated[str | None, typer.Argument(help="Which one.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Name every study.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    full: Annotated[bool, typer.Option("--full", help="The long form, nearer to the paper's.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw what was measured, to a .png, .svg or .pdf file.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep finished parts of a long study in this file, and go on from them."),
    ] = None,
    json: Json = False,
) -> None:
    """Runs a paper's experiment, scaled down.

    Ends with code 1 if a threshold is not met.
    """
    with answering(json) as terminal:
        from mnemos import studies

        if list_all:
            titles = {known: studies.load(known).title for known in studies.names()}
            terminal.show(
                {"studies": titles}, *(f"[bold]{known}[/]  {title}" for known, title in titles.items())
            )
            return
        if name is None:
            raise ValueError(f"say which study: {', '.join(studies.names())}")
        chosen = studies.load(name)
        if figure is not None:
            _check_figure(chosen, figure)
        with terminal.progress(name) as advance:
            outcome = chosen.run(seed, full=full, advance=advance, keep=keep)
        if figure is not None:
            _write_figure(chosen, outcome, figure)
        terminal.show(outcome.facts(), _page(outcome), _papers(outcome))
        if not outcome.passed:
            raise typer.Exit(1)


def _check_figure(study: "Study", path: Path) -> None:
    """Refuses a figure that could not be written, before the study has taken its time."""
    from mnemos.report import drawing  # late: it brings matplotlib

    drawing.check_path(path)
    if study.draw is None:
        raise ValueError(f"the study {study.name!r} has no figure")


def _write_figure(study: "Study", outcome: "Outcome", path: Path) -> None:
    from mnemos.report import drawing

    drawing.save(study.figure(outcome.measured), path)


def _page(outcome: "Outcome") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "value", "measured", "threshold"):
        table.add_column(heading, overflow="fold")
    for name, value in outcome.measured.items():
        if isinstance(value, list | tuple | dict):
            continue  # a curve: it is in the JSON
        said = f"{value:.4g}" if isinstance(value, float) else str(value)
        threshold = outcome.thresholds.get(name)
        mark = Text("pass", "bold green") if threshold and threshold.met(value) else Text("FAIL", "bold red")
        expected = f"{threshold.comparison} {threshold.value:g}" if threshold else ""
        table.add_row(mark if threshold else "", name, said, expected)
    return table


def _papers(outcome: "Outcome") -> Text:
    lines = [f"{figure.what}: {figure.value} ({figure.source})" for figure in outcome.paper]
    return Text("\n".join([f"seed {outcome.seed}, {outcome.seconds:.0f} s", *lines]), "dim")
