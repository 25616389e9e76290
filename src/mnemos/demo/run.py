"""The demo from the first step to the report."""

import platform
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import date
from typing import Any

import torch

from mnemos.demo import texts
from mnemos.demo.answers import remember
from mnemos.demo.crash import survive
from mnemos.demo.eviction import evict
from mnemos.demo.forgetting import revise
from mnemos.demo.learning import learn, train
from mnemos.demo.plan import Plan
from mnemos.demo.results import STEPS, Results, load
from mnemos.demo.sleeping import rest
from mnemos.progress import Advance
from mnemos.tasks.text import Document

OWN = ("text", "model", "memory", "killed", "revised", "slept", "results.json", "report.html")

Watch = Callable[[str], AbstractContextManager[Advance]]  # what the step that begins does


def run(
    plan: Plan,
    command: str,
    watch: Watch,
    *,
    domains: dict[str, list[Document]] | None = None,
) -> Results:
    """Runs the steps that are still to be done, writes the report, and returns what was measured.

    A run that was stopped goes on with the step that it was in; one that is finished, or was given
    another plan, starts afresh.

    Args:
        command: what makes these results again, as the report will say.
        domains: documents of "a" and "b" in place of those that ship with Python.
    """
    from mnemos import report

    results = _begin(plan, command, domains)
    for name in STEPS:
        if getattr(results, name) is None:
            started = time.perf_counter()
            with watch(STEPS[name]) as advance:
                setattr(results, name, _step(name, plan, results, advance))
            results.seconds[name] = time.perf_counter() - started
            results.save(plan.results)
    report.write(results, plan.report)
    return results


def _step(name: str, plan: Plan, results: Results, advance: Advance) -> Any:
    match name:
        case "trained":
            return train(plan, advance)
        case "learned":
            return learn(plan, advance)
        case "resumed":
            return survive(plan, results.done("learned"), advance)
        case "recalled":
            return remember(plan, advance)
        case "forgotten":
            return revise(plan, advance)
        case "evicted":
            return evict(plan, results.done("learned"), advance)
        case "slept":
            return rest(plan, results.done("learned"), advance)
    raise ValueError(f"no step is called {name!r}")


def _begin(plan: Plan, command: str, domains: dict[str, list[Document]] | None) -> Results:
    """What an earlier run of the same plan left undone, or a clean folder."""
    asked = {name: value for name, value in asdict(plan).items() if name != "folder"}
    if plan.results.is_file():
        found = load(plan.results)
        if found.plan == asked and not found.finished:
            return found
    for name in OWN:
        path = plan.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    plan.folder.mkdir(parents=True, exist_ok=True)
    texts.lay_out(plan.folder, domains or texts.defaults(), plan.seed)
    results = Results(command, machine(), date.today().isoformat(), plan.seed, asked)
    results.save(plan.results)
    return results


def machine() -> str:
    """What the measurements were made on."""
    threads = torch.get_num_threads()
    return (
        f"{_processor()}, {threads} thread{'s' * (threads > 1)}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    """Its name: Linux keeps it in a file, and Python does not look there."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as facts:
            names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
