"""Killed at any moment, the embedded store loses nothing; stores that promise too early are caught.

The thousand kills are in `tests/slow`.
"""

from pathlib import Path

import pytest
import torch

import mnemos
from mnemos.stores.base import Store
from mnemos.stores.ram import RamStore
from mnemos.testing.crash import VERBS, after, draw, kill_again_and_again, perform, state_of
from mnemos.testing.faulty_stores import EarlyStore, PiecemealStore

KILLS = 30


def early(path: Path) -> Store:
    return EarlyStore(mnemos.open(path))


def piecemeal(path: Path) -> Store:
    return PiecemealStore(mnemos.open(path))


def broken(path: Path) -> Store:
    raise OSError("out of order")


def test_nothing_is_lost(tmp_path):
    report = kill_again_and_again(mnemos.open, tmp_path / "store", KILLS, seed=0)
    assert report.clean, [report.lost, report.partial, report.faults]
    assert report.kills == KILLS
    assert report.in_flight >= KILLS // 3, f"too few kills hit an operation: {report}"
    assert report.acknowledged >= KILLS


@pytest.mark.parametrize(("open_store", "fault"), [(early, "lost"), (piecemeal, "partial")])
def test_a_store_that_breaks_its_promise_is_caught(tmp_path, open_store, fault):
    """One kill in four or so finds it, so ten times ten kills miss it once in 10^12 runs."""
    for seed in range(10):
        report = kill_again_and_again(open_store, tmp_path / f"store{seed}", 10, seed)
        if getattr(report, fault):
            return
    pytest.fail(f"not caught: {report}")


def test_a_store_that_does_not_open_is_a_fault(tmp_path):
    report = kill_again_and_again(broken, tmp_path / "store", 1, seed=0)
    assert "out of order" in report.faults[0]


def test_the_harness_knows_what_every_operation_does(tmp_path):
    store, state, seen = RamStore(), {}, set()
    for seed in range(200):
        operation = draw(seed, sorted(state))
        if operation.verb == "snapshot":
            continue
        written = perform(store, operation, tmp_path / "never")
        state = after(operation, state, written if operation.verb == "write" else [])
        assert state_of(store) == state, operation.verb
        seen.add(operation.verb)
    assert seen == VERBS.keys() - {"snapshot"}


def test_operations_are_functions_of_their_seed():
    one, other = draw(7, [1, 2, 3]), draw(7, [1, 2, 3])
    assert torch.equal(one.keys, other.keys)
    assert one._replace(keys=0, values=0) == other._replace(keys=0, values=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_change_of_one_bit_is_a_loss(seed):
    """The comparison itself: no record may differ in anything."""
    store = RamStore()
    perform(store, draw(seed, [])._replace(verb="write"), Path())
    before = state_of(store)
    ids = store.ids()[-1:]
    keys = store.gather(ids)[0]
    keys.view(torch.int32)[0, seed] ^= 1
    store.update(ids, keys=keys)
    assert state_of(store) != before
