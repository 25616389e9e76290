"""The embedded store keeps the laws of stores."""

from pathlib import Path
from typing import Any

import mnemos
from mnemos.stores.base import Store
from mnemos.testing.store_suite import StoreSuite


class TestEmbeddedStore(StoreSuite):
    def open(self, path: Path, **options: Any) -> Store:
        return mnemos.open(path, **options)
