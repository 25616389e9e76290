"""The protocol that every store keeps. Its laws are asserted by `mnemos.testing.StoreSuite`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mnemos.retention.policy import Policy, Usage

Metric = Literal["inner_product", "cosine", "euclidean", "hamming"]
DEFAULT_NAMESPACE = "default"
OpenStore = TypeVar("OpenStore", bound="Store")  # beartype refuses Self in a method it decorates alone


class StoreError(Exception):
    """Something is wrong with a store rather than with an argument; the message says what to do."""


class StoreDamagedError(StoreError):
    """The files do not hold what was acknowledged."""


class StoreBusyError(StoreError):
    """Another process is writing and did not finish within the time allowed."""


class StoreClosedError(StoreError):
    """The store has been closed."""


@dataclass(frozen=True)
class Schema:
    """What every record of a store looks like; fixed by the first write.

    Args:
        key_dtype: "float32", "float16", "bfloat16", or "bits": keys packed eight to a byte, uint8.
        key_size: elements of a key (bytes for bits).
        value_dtype: name of a torch dtype.
        value_shape: shape of one value, () for a scalar.
        metric: how keys are compared.
    """

    key_dtype: str
    key_size: int
    value_dtype: str
    value_shape: tuple[int, ...]
    metric: Metric


class Hits(NamedTuple):
    """The nearest records of each query, best first; where fewer were found ids are -1.

    The score is the metric's own value: inner product and cosine (higher is better), Euclidean
    distance and Hamming distance in bits (lower is better). Where nothing was found it is the worst
    value there is (minus or plus infinity) and the value is zero.
    """

    ids: Int[Tensor, "queries found"]
    scores: Float[Tensor, "queries found"]
    values: Shaped[Tensor, "queries found *value"]


class Records(NamedTuple):
    """A batch of records, in the order asked for."""

    ids: Int[Tensor, " records"]
    keys: Shaped[Tensor, "records keys"]
    values: Shaped[Tensor, "records *value"]
    metadata: list[dict[str, Any] | None]
    namespaces: list[str]
    usage: Usage


class Store(ABC):
    """Durable records: an id that is never reused, a key, a value, a namespace and metadata.

    A filter (`where`) is a mapping that all of its entries must fit. `{"namespace": "ada"}` means the
    record's namespace, any other name a top-level entry of its metadata. What it is compared with is a
    value (equality), or a mapping of `"in"`, `"lt"`, `"le"`, `"gt"`, `"ge"` or `"ne"` to a value:
    `{"namespace": "ada", "source": {"in": ["a.txt", "b.txt"]}, "position": {"ge": 100}}`. A record
    without the entry fits no comparison but `"ne"`.

    `read` answers from exactly one namespace, "default" if the filter names none. Every other verb
    means the whole store unless its filter names a namespace.
    """

    @property
    @abstractmethod
    def schema(self) -> Schema | None:
        """What every record looks like; None before the first write."""

    @property
    @abstractmethod
    def metric(self) -> Metric | None:
        """How keys are compared; None if the first write will decide, by what suits its keys."""

    @property
    @abstractmethod
    def revision(self) -> int:
        """Another number after every change of the records, whoever made it: what was made of them is
        good for as long as it stays. Reads do not change it."""

    @abstractmethod
    def write(
        self,
        keys: Shaped[Tensor, "records keys"],
        values: Shaped[Tensor, "records *value"],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> Int[Tensor, " records"]:
        """Writes a batch of new records, all or none, and returns their ids in ascending order.

        When it returns, the records are durable. The first write fixes the schema; gradients are not
        kept.

        Args:
            metadata: one JSON object, or None, per record.
            strength: non-negative, what retention policies may weigh (default 1).

        Raises:
            ValueError: a shape, dtype, length or number (NaN, infinity in a key) that does not fit;
                nothing is written.
        """

    @abstractmethod
    def read(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int = 32,
        *,
        where: Mapping[str, Any] | None = None,
        approximate: bool = False,
        touch: bool = True,
    ) -> Hits:
        """The `k` nearest records of each query, exactly, ties by lowest id.

        Args:
            queries: of the keys' dtype or any float; uint8 for bits.
            where: filter; see the class.
            approximate: answer from the index that `build_index` made, which is faster and can miss
                some; never returns a record that is gone.
            touch: whether this read counts as use (last read, times read).
        """

    @abstractmethod
    def gather(self, ids: Int[Tensor, " records"]) -> tuple[Tensor, Tensor]:
        """Keys and values by id, as copies: the inner loop's `get`. Raises KeyError as `get` does."""

    @abstractmethod
    def get(self, ids: Int[Tensor, " records"]) -> Records:
        """Whole records by id. Raises KeyError naming the ids that are not in the store."""

    @abstractmethod
    def ids(self, where: Mapping[str, Any] | None = None) -> Int[Tensor, " records"]:
        """Ids of the records that fit, ascending. To walk a large store: `for part in ids.split(1000)`."""

    @abstractmethod
    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """How many records fit."""

    @abstractmethod
    def namespaces(self) -> list[str]:
        """Names of the namespaces that hold a record, sorted."""

    @abstractmethod
    def update(
        self,
        ids: Int[Tensor, " records"],
        *,
        keys: Shaped[Tensor, "records keys"] | None = None,
        values: Shaped[Tensor, "records *value"] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> None:
        """Replaces what is given of existing records, all or none; ids and usage stay.

        Raises:
            KeyError: an id that is not in the store. ValueError: an id given twice, or as `write`.
        """

    @abstractmethod
    def delete(
        self, ids: Int[Tensor, " records"] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> int:
        """Deletes by id or by filter, all or none, and returns how many.

        A deleted record is never returned again; its bytes leave the files at the next `compact`.

        Raises:
            KeyError: an id that is not in the store. ValueError: neither or both of ids and where
                (`where={}` is every record).
        """

    @abstractmethod
    def evict(
        self, policy: Policy, keep: int, *, where: Mapping[str, Any] | None = None
    ) -> Int[Tensor, " records"]:
        """Deletes what the policy lets go until at most `keep` fitting records stay; returns their ids."""

    @abstractmethod
    def build_index(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Makes, or makes anew, the approximate index of a namespace. It is a cache: never the truth."""

    @abstractmethod
    def compact(self) -> int:
        """Reclaims the space of what is gone, really erases it, and returns the bytes freed."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Checks every checksum and every cross-reference; a sentence per fault, none if all is well."""

    @abstractmethod
    def snapshot(self, path: str | Path) -> None:
        """A consistent copy at a new path, as of one moment, while reading and writing go on."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Facts for people: records, namespaces (name to count), bytes, format, schema, fingerprint."""

    @abstractmethod
    def flush(self) -> None:
        """Writes buffered usage counts. `close` does it; a crash loses counts, never records."""

    @abstractmethod
    def close(self) -> None:
        """Releases the files. Further calls raise StoreClosedError; closing twice is allowed."""

    def __enter__(self: OpenStore) -> OpenStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
