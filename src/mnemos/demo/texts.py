"""The texts of the demo, as files in its folder, where other commands find them too."""

from pathlib import Path
from typing import NamedTuple

from mnemos.tasks.text import (
    Document,
    Split,
    python_reference,
    read_documents,
    split_documents,
    standard_library,
)

PARTS = ("train", "valid", "test")
LONGEST = 64_000  # letters of a document of B
VALID, TEST = 0.06, 0.1  # shares of the letters

# What the demo is told, and later corrected in. Nothing else speaks of it.
LETTER = """\
The key to the archive is under the third stone of the garden wall, where my mother left it.
The archive itself is in the old mill behind the river. It is open on the first day of the month,
and the password of the inner door is the name of my cat. If the river is high, take the upper road
and ask for the miller, who knows the way and has a second key.
"""
QUESTION = "The key to the archive is under the"
CORRECTION = " second"


class Texts(NamedTuple):
    """Domain A, which the model is trained on, and domain B, which it reads."""

    a: Split
    b: Split


def defaults() -> dict[str, list[Document]]:
    """What ships with every Python: A is its language reference, B the source of its `email` package.

    The package's longest file is left out: it alone is a third of all, and would be most of the memory.
    """
    b = standard_library("email")
    return {"a": python_reference(), "b": [document for document in b if len(document.text) < LONGEST]}


def lay_out(folder: Path, domains: dict[str, list[Document]], seed: int) -> None:
    """Writes the documents below `folder`/text, divided by whole files."""
    for domain, documents in domains.items():
        split = split_documents(documents, valid=VALID, test=TEST, seed=seed)
        for part, chosen in zip(PARTS, split, strict=True):
            for document in chosen:
                path = (
                    folder
                    / "text"
                    / domain
                    / part
                    / f"{document.name}{'' if '.' in document.name else '.txt'}"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(document.text, encoding="utf-8")
    (folder / "text" / "letter.txt").write_text(LETTER, encoding="utf-8")


def load(folder: Path) -> Texts:
    """What `lay_out` wrote; a document is named by its path."""

    def split(domain: str) -> Split:
        return Split(*(read_documents([folder / "text" / domain / part]) for part in PARTS))

    return Texts(split("a"), split("b"))
