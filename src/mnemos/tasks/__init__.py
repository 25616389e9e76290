"""A task is a source of batches and a score."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from mnemos.tasks.task import Task
from mnemos.tasks.text import (
    Document,
    RepeatedLines,
    Split,
    Tokens,
    bits_per_byte,
    count_bytes,
    encode,
    novels,
    python_reference,
    read_documents,
    repeated_lines,
    split_documents,
    standard_library,
    train_tokenizer,
)

# For every name its file and what makes it there; a task is imported only when it is asked for.
TASKS = {
    "associative-recall": ("recall", "AssociativeRecall"),
    "associative-retrieval": ("retrieval", "AssociativeRetrieval"),
    "babi": ("babi_words", "babi_words"),
    "copy": ("algorithms", "Copy"),
    "dynamic-n-grams": ("algorithms", "DynamicNGrams"),
    "graph-traversal": ("graph_questions", "graph_traversal"),
    "induction-heads": ("selective", "InductionHeads"),
    "key-value-recall": ("recall", "KeyValueRecall"),
    "mqar": ("multi_query_recall", "MultiQueryRecall"),
    "omniglot": ("omniglot", "omniglot_episodes"),
    "priority-sort": ("algorithms", "PrioritySort"),
    "repeat-copy": ("algorithms", "RepeatCopy"),
    "selective-copying": ("selective", "SelectiveCopying"),
    "shortest-path": ("graph_questions", "shortest_path"),
}


def named(name: str, **sizes: Any) -> Task:
    """The task of that name, with sizes of one's own where they are given.

    Raises:
        ValueError: there is no such task, or it has no such size.
    """
    try:
        return _maker(name)(**sizes)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made: {error}") from None


def sizes_of(name: str) -> set[str]:
    """The names of what can be chosen about a task."""
    return set(inspect.signature(_maker(name)).parameters)


def _maker(name: str) -> Callable[..., Task]:
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}: there are {', '.join(TASKS)}")
    file, maker = TASKS[name]
    made: Callable[..., Task] = getattr(importlib.import_module(f"{__name__}.{file}"), maker)
    return made


__all__ = [
    "TASKS",
    "Document",
    "RepeatedLines",
    "Split",
    "Task",
    "Tokens",
    "bits_per_byte",
    "count_bytes",
    "encode",
    "named",
    "novels",
    "python_reference",
    "read_documents",
    "repeated_lines",
    "sizes_of",
    "split_documents",
    "standard_library",
    "train_tokenizer",
]
