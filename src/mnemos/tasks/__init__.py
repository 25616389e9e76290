"""A task is a source of batches and a score."""

import importlib
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

# For every name its file and class; a task is imported only when it is asked for.
TASKS = {
    "associative-recall": ("algorithms", "AssociativeRecall"),
    "copy": ("algorithms", "Copy"),
    "dynamic-n-grams": ("algorithms", "DynamicNGrams"),
    "key-value-recall": ("algorithms", "KeyValueRecall"),
    "priority-sort": ("algorithms", "PrioritySort"),
    "repeat-copy": ("algorithms", "RepeatCopy"),
}


def named(name: str, **arguments: Any) -> Task:
    """The task of that name, with sizes of one's own where they are given.

    Raises:
        ValueError: there is no such task, or it has no such size.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}: there are {', '.join(TASKS)}")
    file, kind = TASKS[name]
    try:
        task: Task = getattr(importlib.import_module(f"{__name__}.{file}"), kind)(**arguments)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made: {error}") from None
    return task


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
    "split_documents",
    "standard_library",
    "train_tokenizer",
]
