"""Functions run in processes of their own.

They are forked from a server that never opened a store: an SQLite connection that is open when a
process forks is open in both, and then neither knows which locks it holds.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from typing import Any


def fork_server() -> ForkServerContext:
    """A multiprocessing context whose processes start warm, with this library imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mnemos.stores.embedded", "mnemos.testing.crash"])
    return context


def in_processes(*calls: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Any]:
    """Runs calls at the same time, each in a process of its own, and returns what they returned.

    The first exception is raised here. Functions and arguments must be picklable.
    """
    with ProcessPoolExecutor(len(calls), mp_context=fork_server()) as pool:
        return [future.result() for future in [pool.submit(call, *given) for call, given in calls]]
