"""What of the laws waits for the slow tier."""

import pytest


def pytest_collection_modifyitems(items):
    """Variants of a memory ("Class/variant") are compiled in the slow tier; the plain form in every run."""
    for item in items:
        if item.name.startswith("test_compiles[") and "/" in item.name:
            item.add_marker(pytest.mark.slow)
