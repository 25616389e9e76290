"""Commands for any store: what is in it, and what it should let go."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mnemos.cli.terminal import Json, Terminal, answering, existing
from mnemos.stores.base import Store

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")]
COMPARISONS = {"=": None, "!=": "ne", "<=": "le", ">=": "ge", "<": "lt", ">": "gt"}
BATCH = 4096  # records looked at together


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: mnemos inspect notes.memory")(inspect)
    app.command(
        epilog="Example: mnemos forget notes.memory --policy least_recently_used --keep 50%",
    )(forget)


def inspect(store: StorePath, json: Json = False) -> None:
    """Shows the size, use and health of a store.

    Verifies every checksum and reference; ends with code 1 if one is wrong.
    """
    with answering(json) as terminal:
        import mnemos

        with (
            mnemos.open(existing(store, "store"), read_only=True) as memory,
            terminal.waiting("checking every record"),
        ):
            facts = {"path": str(store), **memory.stats(), "use": use(memory), "faults": memory.verify()}
        terminal.show(facts, _page(facts))
        if facts["faults"]:
            raise typer.Exit(1)


def use(store: Store) -> dict[str, Any]:
    """How much of a store was ever read, and from which sources its records come."""
    reads, unread, sources = 0, 0, dict[str, int]()
    for part in store.ids().split(BATCH):
        records = store.get(part)
        reads += int(records.usage.times_read.sum())
        unread += int((records.usage.times_read == 0).sum())
        for facts in records.metadata:
            name = str((facts or {}).get("source", ""))
            sources[name] = sources.get(name, 0) + 1
    return {"times_read": reads, "never_read": unread, "sources": sources}


def forget(
    store: StorePath,
    source: Annotated[
        list[str] | None, typer.Option(help="Forget the records of this source; may be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Forget what fits, like namespace=ada or position>=100; all of them must fit."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Let go by this policy, down to --keep, of what fits.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="With --policy: how many records stay, 1000 or 50%.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    json: Json = False,
) -> None:
    """Forgets by source, by filter or by policy.

    Then compacts the store, which erases the bytes from its files.
    """
    with answering(json) as terminal:
        import mnemos

        fitting = chosen(source, where)
        if (policy is None) != (keep is None):
            raise ValueError("--policy and --keep belong together")
        if not fitting and policy is None:
            raise ValueError("say what to forget: --source, --where, or --policy with --keep")
        with mnemos.open(existing(store, "store")) as memory:
            facts = _forget(memory, fitting, policy, keep, dry_run, terminal)
        terminal.show(
            facts,
            f"{'Would forget' if dry_run else 'Forgot'} {facts['forgotten']:,} records; "
            f"{facts['records']:,} stay; {facts['bytes_freed']:,} bytes freed.",
        )


def _forget(
    store: Store,
    fitting: dict[str, Any],
    policy: str | None,
    keep: str | None,
    dry_run: bool,
    terminal: Terminal,
) -> dict[str, Any]:
    count = store.count(fitting)
    budget = 0 if keep is None else budget_of(keep, count)
    gone = max(count - budget, 0)
    freed = 0
    if not dry_run:
        with terminal.progress("forgetting") as advance:
            if policy is None:
                store.delete(where=fitting)
            else:
                from mnemos import retention

                store.evict(retention.named(policy), budget, where=fitting)
            advance(0.5, "compacting")
            freed = store.compact()
    stays = store.count() - (gone if dry_run else 0)
    return {"forgotten": gone, "records": stays, "bytes_freed": freed, "dry_run": dry_run}


def chosen(source: list[str] | None, where: list[str] | None) -> dict[str, Any]:
    """The filter that `--source` and `--where` mean together."""
    fitting: dict[str, Any] = {}
    if source:
        from mnemos.models.recollection import CORRECTION_OF  # late: it brings all of the models

        fitting["source"] = {"in": [*source, *(CORRECTION_OF + name for name in source)]}
    for condition in where or []:
        name, comparison, value = _parsed(condition)
        if comparison is None:
            fitting[name] = value
        else:
            held = fitting.setdefault(name, {})
            if not isinstance(held, dict):
                raise ValueError(f"--where {condition}: {name} is already fixed")
            held[comparison] = value
    return fitting


def _parsed(condition: str) -> tuple[str, str | None, Any]:
    found = re.fullmatch(r"([A-Za-z_]\w*)(!=|<=|>=|=|<|>)(.*)", condition, re.DOTALL)
    if not found:
        raise ValueError(f"--where {condition!r} is not like name=value, name>=value or name!=value")
    name, comparison, value = found.groups()
    return name, COMPARISONS[comparison], _number(value)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def budget_of(keep: str, count: int) -> int:
    """How many records `--keep` means: a number, or a percentage of those that fit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", keep.strip())
    if not found or (not found[2] and "." in found[1]):
        raise ValueError(f"--keep is a number of records or a percentage like 50%, not {keep!r}")
    share = float(found[1])
    if found[2] and share > 100:
        raise ValueError(f"--keep is at most 100%, not {keep}")
    return int(count * share / 100) if found[2] else int(found[1])


def _page(facts: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    use = facts["use"]
    records = sum(facts["namespaces"].values())
    rows = [
        ("store", facts["path"]),
        ("records", f"{records:,}"),
        ("on disk", f"{facts['bytes'] / 1e6:,.1f} MB"),
        (
            "namespaces",
            ", ".join(f"{name} {count:,}" for name, count in facts["namespaces"].items()) or "none",
        ),
        ("sources", f"{len(use['sources']):,}"),
        ("use", f"{use['times_read']:,} reads; {use['never_read']:,} records never read"),
        ("schema", facts["schema"]),
        ("health", "; ".join(facts["faults"]) or "every checksum and reference is right"),
    ]
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", str(value))
    return table
