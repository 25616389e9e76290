"""An archive as a resource: other processes, interruptions, erasure during a read, and what does not fit."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.memories.archive import ATTEMPTS, Archive
from mnemos.memories.memorizing import MemorizingAttention, MemorizingState
from mnemos.stores.base import Hits, Store, StoreBusyError, StoreClosedError
from mnemos.testing.faulty_stores import PassingStore
from mnemos.testing.processes import in_processes


def small(archive: Archive | None = None, slots: int = 5) -> MemorizingAttention:
    torch.manual_seed(0)
    return MemorizingAttention(6, 4, window=3, slots=slots, top_k=2, heads=2, archive=archive)


@pytest.fixture
def store() -> Iterator[Store]:
    with mnemos.open(":memory:") as store:
        yield store


def told(memory: MemorizingAttention, inputs: Tensor) -> None:
    """Commits a document every five steps and at its end."""
    state = None
    for piece in inputs.split(5, dim=1):
        state = memory.commit(memory(piece, state)[1])
    memory.commit(state, ended=torch.ones(len(inputs), dtype=torch.bool))


def recall(path: Path, asked: Tensor) -> Tensor:
    """What a process that was told nothing reads."""
    torch.set_num_threads(1)
    with mnemos.open(path, read_only=True) as store, torch.no_grad():
        return small(Archive(store, "layer 3"))(asked)[0]


def test_another_process_recalls_what_was_committed(tmp_path: Path) -> None:
    asked, path = torch.randn(2, 5, 6), tmp_path / "archive.memory"
    with mnemos.open(path) as store, torch.no_grad():
        memory = small(Archive(store, "layer 3"))
        told(memory, torch.randn(1, 20, 6))
        here, (elsewhere,) = memory(asked)[0], in_processes((recall, (path, asked)))
        torch.testing.assert_close(elsewhere, here)
        assert not torch.allclose(here, small()(asked)[0])
    assert torch.equal(recall(path, asked), here)


class Busy(PassingStore):
    """Refuses the second write."""

    writes = 0

    def write(self, *given: Any, **options: Any) -> Tensor:
        self.writes += 1
        if self.writes == 2:
            raise StoreBusyError("another process is writing")
        return self.store.write(*given, **options)


def test_an_interrupted_commit_leaves_the_state_to_be_committed_again(store: Store) -> None:
    memory, larger = small(Archive(Busy(store))), small(slots=100)
    inputs = torch.randn(2, 15, 6)
    _, state = memory(inputs[:, :5])
    state = memory.commit(state)
    _, state = memory(inputs[:, 5:10], state)
    with pytest.raises(StoreBusyError):
        memory.commit(state)
    assert store.count() == 4
    state = memory.commit(state)
    assert store.count() == 14
    one = mnemos.select_rows(state, torch.tensor([0]))
    store.delete(torch.arange(2, 4))  # of the other row
    store.delete(torch.arange(9, 14))
    expected = larger(inputs[:1])[0][:, 10:]
    torch.testing.assert_close(memory(inputs[:1, 10:], one)[0], expected)


class Vanishing(PassingStore):
    """Another process erases the best record between a search and the fetching of what it found."""

    times = 0

    def read(self, *given: Any, **options: Any) -> Hits:
        hits = self.store.read(*given, **options)
        if self.times:
            self.times -= 1
            self.store.delete(hits.ids[:1, 0])
        return hits


def test_what_is_erased_during_a_read_is_not_read(store: Store) -> None:
    vanishing = Vanishing(store)
    memory = small(Archive(vanishing))
    told(memory, torch.randn(1, 40, 6))
    asked = torch.randn(1, 1, 6)
    vanishing.times = 3
    outputs = memory(asked)[0]
    assert store.count() == 37
    assert torch.equal(outputs, memory(asked)[0])
    vanishing.times = ATTEMPTS
    with pytest.raises(KeyError, match="not in the store"):
        memory(asked)


def test_a_state_is_saved_with_what_is_committed(store: Store, tmp_path: Path) -> None:
    memory = small(Archive(store))
    state = memory.commit(memory(torch.randn(2, 9, 6))[1])
    mnemos.save(tmp_path / "state", memory, state)
    loaded = mnemos.load(tmp_path / "state", memory)
    assert isinstance(loaded, MemorizingState)
    assert all(torch.equal(x, y) for x, y in zip(loaded, state, strict=True))
    with pytest.raises(mnemos.SnapshotError, match="archive"):
        mnemos.load(tmp_path / "state", small())


def test_a_module_with_a_store_on_disk_cannot_be_copied(tmp_path: Path) -> None:
    with mnemos.open(tmp_path / "archive.memory") as store, pytest.raises(TypeError):
        copy.deepcopy(small(Archive(store)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_store_of_another_metric_is_refused(metric: Any) -> None:
    with (
        mnemos.open(":memory:", metric=metric) as store,
        pytest.raises(ValueError, match=f"compares by inner_product, not by {metric}"),
    ):
        small(Archive(store))


def test_a_store_of_something_else_is_refused_before_anything_is_written(store: Store) -> None:
    memory = small(Archive(store))
    _, state = memory(torch.randn(1, 9, 6))
    store.write(torch.randn(1, 6), torch.randn(1, 6))
    for refused in (lambda: memory.commit(state), lambda: small(Archive(store))):
        with pytest.raises(ValueError, match=r"archive needs a store of Schema\(.*key_size=6.*\(2, 3\)"):
            refused()
    assert store.count() == 1


def test_errors_come_before_anything_is_written(store: Store) -> None:
    memory = small(Archive(store))
    _, state = memory(torch.randn(2, 9, 6))
    with pytest.raises(ValueError, match="commit needs a memory with an archive"):
        small().commit(state)
    with pytest.raises(ValueError, match="one for each of 2 rows, not 3"):
        memory.commit(state, metadata=[{}] * 3)
    with pytest.raises(ValueError, match='must not have a "step"'):
        memory.commit(state, metadata={"step": 3})
    with pytest.raises(
        ValueError, match=r"ended must be boolean of shape \(2,\), not torch.bool of shape \(1,\)"
    ):
        memory.commit(state, ended=torch.tensor([True]))
    assert store.count() == 0
    memory.commit(state)
    store.close()
    for refused in (lambda: memory.commit(state), lambda: memory(torch.randn(1, 3, 6))):
        with pytest.raises(StoreClosedError):
            refused()
