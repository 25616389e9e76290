"""What of the laws waits for the slow tier."""

import pytest

# What takes a memory long to compile, and is the code of another that is compiled in every run.
SAME_STEPS = {
    "AssociativeRecurrentMemory": "RecurrentMemory",
    "Atlas": "ContinuumMemory",
    "MemoryAsContext": "Titans",
    "MemoryAsLayer": "MemoryAsGate",
    "TTTLinear": "Titans",
    "TTTMLP": "Titans",
}


def pytest_collection_modifyitems(items):
    """Variants of a memory ("Class/variant") are compiled in the slow tier; the plain form in every run."""
    for item in items:
        law, _, name = item.name.removesuffix("]").partition("[")
        if law == "test_compiles" and ("/" in name or name in SAME_STEPS):
            item.add_marker(pytest.mark.slow)
