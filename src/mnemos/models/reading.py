"""Reading many documents into a memory, and what it costs and buys on the way."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.mixture import Mixture
from mnemos.models.nearest_neighbour import Progress, memorize
from mnemos.stores.base import DEFAULT_NAMESPACE, Store
from mnemos.tasks.text import Document


class Point(NamedTuple):
    """Where reading stands after a batch that the store has acknowledged."""

    source: str  # the document at hand
    share: float  # of all the text, from 0 to 1, what was there already included
    bytes_read: int  # by this call
    records: int  # written by this call
    without: float  # bits per byte of this batch under the model alone
    with_memory: float  # with the memory as it was before the batch; NaN if it was not asked


class Totals(NamedTuple):
    """What one call of `read_all` read; bits per byte over all of it."""

    documents: int
    bytes_read: int
    records: int
    without: float
    with_memory: float


def read_all(
    language_model: LanguageModel,
    store: Store,
    documents: Sequence[Document],
    mixture: Mixture | None,
    *,
    ask_every: int = 1,
    namespace: str = DEFAULT_NAMESPACE,
) -> Iterator[Point]:
    """Reads documents one after the other; `memorize` says how, and what it raises."""
    total = sum(len(document.text.encode()) for document in documents)
    passed = bytes_read = records = 0
    for document in documents:
        size = len(document.text.encode())
        batches = memorize(
            language_model, store, document, namespace=namespace, mixture=mixture, ask_every=ask_every
        )
        for progress in batches:
            bytes_read += progress.bytes
            records += progress.written
            share = (passed + size * progress.tokens / progress.total) / total
            yield Point(document.name, share, bytes_read, records, *_bits(progress))
        passed += size


def _bits(progress: Progress) -> tuple[float, float]:
    scale = 1 / math.log(2) / max(progress.bytes, 1)
    return progress.model_nats * scale, progress.memory_nats * scale


def totals(points: Sequence[Point]) -> Totals:
    """The sum of a reading."""
    if not points:
        return Totals(0, 0, 0, math.nan, math.nan)
    sizes = [point.bytes_read - before for point, before in _with_previous(points)]
    count = sum(sizes)

    def mean(costs: Sequence[float]) -> float:
        return sum(cost * size for cost, size in zip(costs, sizes, strict=True)) / max(count, 1)

    return Totals(
        len({point.source for point in points}),
        count,
        points[-1].records,
        mean([point.without for point in points]),
        mean([point.with_memory for point in points]),
    )


def _with_previous(points: Sequence[Point]) -> Iterator[tuple[Point, int]]:
    before = 0
    for point in points:
        yield point, before
        before = point.bytes_read
