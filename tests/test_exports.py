"""What is public, what importing costs, and which way imports go."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mnemos
import mnemos.memories
import mnemos.retention
import mnemos.stores
import mnemos.testing

SOURCE = Path(mnemos.__file__).parent

# What a part may import of mnemos, beside itself.
FOUNDATION = {"tree", "ops", "retention", "stores", "memories", "snapshot", "sparse_optimizer"}
NETWORKS = FOUNDATION | {"progress", "tasks", "models", "training", "consolidation"}
ALLOWED = {
    "tree": set(),
    "progress": set(),
    "ops": set(),
    "retention": set(),
    "stores": {"retention"},
    "memories": {"tree", "ops", "retention", "stores"},
    "sparse_optimizer": {"stores"},
    "snapshot": {"tree", "retention", "memories"},
    "testing": FOUNDATION,
    "tasks": set(),
    "consolidation": FOUNDATION | {"progress"},
    "models": FOUNDATION | {"tasks"},
    "training": FOUNDATION | {"tasks", "models", "progress", "consolidation"},
    "studies": NETWORKS | {"testing", "report"},
    "demo": NETWORKS | {"studies", "report"},
    "report": NETWORKS | {"demo"},
    "cli": NETWORKS | {"studies", "demo", "report", "testing"},
    "__main__": {"cli"},
}


def imported(file):
    """The parts of mnemos that a file imports, at its top or inside a function."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = {name.split(".")[1] for name in names if name.startswith("mnemos.")}
    # What is left out are public names, of `from mnemos import ...`: the face that all above may use.
    return {part for part in parts if (SOURCE / part).is_dir() or (SOURCE / f"{part}.py").is_file()}


def test_imports_go_one_way():
    wrong = []
    for file in SOURCE.rglob("*.py"):
        inside = file.relative_to(SOURCE)
        part = inside.parts[0].removesuffix(".py")
        if part != "__init__":
            assert part in ALLOWED, f"say in ALLOWED what {inside} may import"
            wrong += [f"{inside} imports {other}" for other in imported(file) - ALLOWED[part] - {part}]
    assert not wrong


def test_nobody_imports_the_command_line():
    assert [part for part, allowed in ALLOWED.items() if "cli" in allowed] == ["__main__"]


def test_only_the_tree_touches_torchs_pytree():
    users = [file.name for file in SOURCE.rglob("*.py") if "_pytree" in file.read_text()]
    assert users == ["tree.py"]


@pytest.mark.parametrize("module", [mnemos, mnemos.memories, mnemos.retention, mnemos.stores, mnemos.testing])
def test_what_is_listed_is_there_and_listed_once_in_order(module):
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert sorted(set(module.__all__)) == sorted(module.__all__)


def test_the_promised_names_are_public():
    promised = ["open", "save", "load", "detach", "select_rows", "reset_rows", "nbytes"]
    assert [name for name in promised if not callable(getattr(mnemos, name, None))] == []
    verbs = "write read get update delete count namespaces evict compact verify snapshot stats close"
    with mnemos.open(":memory:") as store:
        assert [verb for verb in verbs.split() if not callable(getattr(store, verb, None))] == []


def test_importing_mnemos_needs_nothing_optional():
    optional = [
        "faiss",
        "tokenizers",
        "lightning",
        "transformers",
        "matplotlib",
        "typer",
        "pytest",
        "beartype",
    ]
    program = f"import sys, mnemos; print([name for name in {optional} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
