"""The laws of stores as a test class."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from mnemos.stores.base import Metric, Store
from mnemos.testing import store_answer_laws as answers
from mnemos.testing import store_lasting_laws as lasting
from mnemos.testing import store_sharing_laws as sharing
from mnemos.testing.store_history import check_histories
from mnemos.testing.store_trial import KEY_KINDS


class StoreSuite(ABC):
    """The laws that every store keeps, for pytest to collect.

    Your store is held to them in a few lines:

        class TestMine(mnemos.testing.StoreSuite):
            def open(self, path, **options):
                return MyStore(path, **options)

    `open` is given a path under a folder of the test's own, which it may read as it likes, and any of
    the options of `mnemos.open`: metric, fingerprint, read_only, clock. Opening the same path again must
    give the same records, in this process and in another; so the test class must be at the top of an
    importable module. A store that ends with its process says `durable = False`.

    Attributes:
        durable: whether records outlast the store object.
        histories: how many random histories are compared with the store in RAM (`max_examples`), and
            how long they are (`stateful_step_count`).
    """

    durable = True
    histories = settings(max_examples=30, stateful_step_count=25)

    @abstractmethod
    def open(self, path: Path, **options: Any) -> Store:
        """Opens the store at a path, or makes it."""

    @pytest.fixture
    def lasts(self) -> None:
        if not self.durable:
            pytest.skip("the store ends with its process")

    # 1. Durable (a store that can be killed is held to it by `mnemos.testing.crash` too).

    @pytest.mark.usefixtures("lasts")
    @pytest.mark.parametrize(("metric", "dtype"), KEY_KINDS)
    def test_reopened(self, tmp_path: Path, metric: Metric, dtype: torch.dtype) -> None:
        lasting.reopened(self.open, tmp_path, metric, dtype)

    @pytest.mark.usefixtures("lasts")
    def test_not_closed(self, tmp_path: Path) -> None:
        lasting.not_closed(self.open, tmp_path)

    @pytest.mark.usefixtures("lasts")
    def test_opened_as_what_it_is(self, tmp_path: Path) -> None:
        lasting.opened_as_what_it_is(self.open, tmp_path)

    def test_refused_whole(self, tmp_path: Path) -> None:
        answers.refused_whole(self.open, tmp_path)

    # 2. Exact by default.

    @pytest.mark.parametrize(("metric", "dtype"), KEY_KINDS)
    def test_exact(self, tmp_path: Path, metric: Metric, dtype: torch.dtype) -> None:
        answers.exact(self.open, tmp_path, metric, dtype)

    def test_fewer_than_asked(self, tmp_path: Path) -> None:
        answers.fewer_than_asked(self.open, tmp_path)

    def test_filtered(self, tmp_path: Path) -> None:
        answers.filtered(self.open, tmp_path)

    def test_approximate(self, tmp_path: Path) -> None:
        answers.approximate(self.open, tmp_path)

    # 3. Addressable.

    def test_ids_are_never_reused(self, tmp_path: Path) -> None:
        answers.ids_are_never_reused(self.open, tmp_path, self.durable)

    def test_revised(self, tmp_path: Path) -> None:
        answers.revised(self.open, tmp_path, self.durable)

    def test_found_by_id(self, tmp_path: Path) -> None:
        answers.found_by_id(self.open, tmp_path)

    def test_the_caller_keeps_its_tensors(self, tmp_path: Path) -> None:
        answers.the_caller_keeps_its_tensors(self.open, tmp_path)

    def test_updated(self, tmp_path: Path) -> None:
        answers.updated(self.open, tmp_path)

    def test_deleted(self, tmp_path: Path) -> None:
        answers.deleted(self.open, tmp_path)

    def test_usage_is_kept(self, tmp_path: Path) -> None:
        answers.usage_is_kept(self.open, tmp_path)

    def test_closed(self, tmp_path: Path) -> None:
        answers.closed(self.open, tmp_path)

    def test_empty(self, tmp_path: Path) -> None:
        answers.empty(self.open, tmp_path)

    # 4. Isolated.

    def test_namespaces_apart(self, tmp_path: Path) -> None:
        lasting.namespaces_apart(self.open, tmp_path)

    @pytest.mark.usefixtures("lasts")
    def test_shared_between_processes(self, tmp_path: Path) -> None:
        sharing.shared_between_processes(self.open, tmp_path)

    @pytest.mark.usefixtures("lasts")
    def test_one_moment(self, tmp_path: Path) -> None:
        sharing.one_moment(self.open, tmp_path)

    # 5. Forgets.

    @pytest.mark.parametrize("policy", lasting.POLICIES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
    def test_evicted(self, tmp_path: Path, policy: str, dtype: torch.dtype) -> None:
        lasting.evicted(self.open, tmp_path, lasting.POLICIES[policy](), dtype)

    @pytest.mark.usefixtures("lasts")
    def test_erased(self, tmp_path: Path) -> None:
        lasting.erased(self.open, tmp_path)

    # 6. Beyond RAM.

    @pytest.mark.slow
    @pytest.mark.usefixtures("lasts")
    def test_beyond_ram(self, tmp_path: Path) -> None:
        lasting.beyond_ram(self.open, tmp_path)

    # 7. Evolves: what an older release wrote is its own release's to test.

    def test_facts(self, tmp_path: Path) -> None:
        lasting.facts(self.open, tmp_path)

    @pytest.mark.usefixtures("lasts")
    def test_snapshots(self, tmp_path: Path) -> None:
        lasting.snapshots(self.open, tmp_path)

    # All of them at once.

    def test_any_history(self) -> None:
        """Whatever is done to it, it answers as the store in RAM does."""
        check_histories(self.open, self.durable, self.histories)
