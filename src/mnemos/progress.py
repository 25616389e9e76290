"""How long work tells how far it has come; who calls it decides whether anybody sees."""

from collections.abc import Callable

Advance = Callable[[float, str], None]  # (the share done, from 0 to 1; what is being done)


def silent(share: float, what: str) -> None:
    """Shows nothing."""


def between(advance: Advance, start: float, end: float) -> Advance:
    """The progress of a part that runs from `start` to `end` of the whole."""
    return lambda share, what: advance(start + share * (end - start), what)
