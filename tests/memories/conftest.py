"""What of the laws waits for the slow tier."""

import pytest

# What takes a memory long to compile, and is the code of another that is compiled in every run.
SAME_STEPS = {
    "AssociativeRecurrentMemory": "RecurrentMemory",
    "MemoryAsLayer": "MemoryAsGate",
    "TTTLinear": "Titans",
    "TTTMLP": "Titans",
}


def pytest_collection_modifyitems(items):
    """Variants of a memory ("Class/variant") are compiled in the slow tier; the plain form in every run."""
    for item in items:
        name = item.name.removeprefix("test_compiles[").removesuffix("]")
        if item.name != name and ("/" in name or name in SAME_STEPS):
            item.add_marker(pytest.mark.slow)
