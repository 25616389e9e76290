"""The parts of a long study that are done, so that one that was interrupted need not do them again."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_PARTS: ContextVar["Parts | None"] = ContextVar("parts", default=None)


def part(name: str, measure: Callable[[], Any]) -> Any:
    """What a part of a study measured: now, or, within `kept`, in an earlier run.

    Args:
        name: of the part, one of its own within the study.
        measure: gives what JSON can hold, and depends on nothing that earlier parts have left behind.
    """
    parts = _PARTS.get()
    return measure() if parts is None else parts.part(name, measure)


@contextmanager
def kept(path: Path, of: Mapping[str, Any]) -> Iterator[None]:
    """Within it the parts of a study are kept in a file, and those that are there are not measured again.

    Args:
        of: what tells this run from others: the study, its seed, and so on.

    Raises:
        ValueError: the file is of another run, or no file of parts.
    """
    token = _PARTS.set(Parts(path, of))
    try:
        yield
    finally:
        _PARTS.reset(token)


class Parts:
    """A line of JSON for the run, and one for each part; half a line, cut off by a crash, is none."""

    def __init__(self, path: Path, of: Mapping[str, Any]) -> None:
        self.path, self.done = path, dict[str, Any]()
        if not path.exists():
            self._append(dict(of))
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        try:
            run, *parts = map(json.loads, whole.splitlines())
            self.done = {line["part"]: line["measured"] for line in parts}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no file of parts of a study") from error
        if run != dict(of):
            raise ValueError(f"{path} holds parts of {run}, not of {dict(of)}: name another file")
        os.truncate(path, len(whole + newline))

    def part(self, name: str, measure: Callable[[], Any]) -> Any:
        """The part that is kept, or else what is measured, kept before it is given back."""
        if name not in self.done:
            line = self._append({"part": name, "measured": measure()})
            self.done[name] = json.loads(line)["measured"]
        return self.done[name]

    def _append(self, value: Any) -> str:
        line = json.dumps(value)
        with self.path.open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        return line
