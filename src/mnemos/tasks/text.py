"""Text for language models: documents from files, from what ships with Python, and from whole novels.

A document is a whole file and never divided between training and test. Text is measured in bits per
byte, which can be compared between tokenizers and between texts; perplexity per token cannot.
"""

import importlib.util
import json
import math
import random
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mnemos.tasks.files import data_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NOVELS = "text/english_novels_dev.zip"
NOVELS_ADDRESS = "https://github.com/computationalstylistics/100_english_novels"
NOVELS_SHA256 = "186ce0f3b36b4fc85a67abfd7f3061de00056622d4c495cc2cb132c5e3f23077"


class Document(NamedTuple):
    """One text and where it came from."""

    name: str
    text: str


class Split(NamedTuple):
    """Documents to learn from, to tune on and to report on; no document is in two of them."""

    train: list[Document]
    valid: list[Document]
    test: list[Document]


class RepeatedLines(NamedTuple):
    """How many lines there are, blank ones left out, and how many of them are also in the training text."""

    lines: int
    repeated: int


class Tokens(NamedTuple):
    """A text as a language model sees it."""

    ids: Int[Tensor, " tokens"]
    lines: Int[Tensor, " tokens"]  # the line of the text on which each token starts, from 1


def read_documents(paths: Iterable[str | Path], suffixes: Sequence[str] = ()) -> list[Document]:
    """Text files, and every file below the folders among them, in the order of their names.

    A document's name is the path as given, with the path below the folder added to it.

    Args:
        suffixes: what the name of a file found in a folder must end with, for instance [".py", ".md"];
            none means every file. Hidden files and folders are left out.

    Raises:
        FileNotFoundError: a path that is not there, or a folder without a fitting file.
        ValueError: a file that is empty or is not text in UTF-8.
    """
    documents = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        files = _files_below(path, suffixes) if path.is_dir() else [path]
        if not files:
            wanted = " or ".join(suffixes) or "any name"
            raise FileNotFoundError(f"{path}: no file of {wanted} in this folder")
        documents += [Document(file.as_posix(), _read_text(file)) for file in files]
    return documents


def _files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    def wanted(file: Path) -> bool:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        return file.is_file() and not hidden and (not suffixes or file.name.endswith(tuple(suffixes)))

    return sorted(file for file in folder.rglob("*") if wanted(file))


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    if not content.strip():
        raise ValueError(f"{file}: the file is empty")
    if b"\0" in content:
        raise ValueError(f"{file}: a binary file (it holds NUL bytes), not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start} cannot be decoded)") from None


def python_reference() -> list[Document]:
    """The language reference that ships with every CPython, a document per topic (about 370 KB).

    Many topics repeat a part of a larger one: those with half of their lines in larger topics are left
    out, lest a text that was learned stand in the test again.
    """
    from pydoc_data import topics as module

    topics = getattr(module, "topics", None)
    if not isinstance(topics, dict) or not topics:
        raise RuntimeError(
            "this Python ships without the texts of its help topics (pydoc_data.topics): name text files"
        )
    documents = [Document(f"topics/{name}", topics[name]) for name in sorted(topics)]
    return sorted(_without_repetition(documents))


def _without_repetition(documents: list[Document]) -> list[Document]:
    kept: list[Document] = []
    known: set[str] = set()
    for document in sorted(documents, key=lambda document: len(document.text), reverse=True):
        lines = _lines(document)
        if sum(line in known for line in lines) <= len(lines) / 2:
            kept.append(document)
            known.update(lines)
    return kept


def standard_library(package: str = "email") -> list[Document]:
    """The source of a package of the standard library, a document per file; the tests are left out."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"package must be a package of the standard library, not {package!r}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = [file for file in _files_below(folder, [".py"]) if file.stat().st_size]
    names = [f"{package}/{file.relative_to(folder).as_posix()}" for file in files]
    found = zip(names, files, strict=True)
    return [Document(name, _read_text(file)) for name, file in found if "/test/" not in name]


def novels(root: str | Path | None = None) -> Split:
    """72 English novels that are in the public domain: 60 for training, 6 to tune on, 6 to report on.

    Args:
        root: a data folder that holds text/english_novels_dev.zip; the environment's MNEMOS_DATA if
            None.

    Raises:
        FileNotFoundError: there is no such folder or archive. ValueError: the archive is another one.
    """
    archive = data_file(NOVELS, NOVELS_SHA256, NOVELS_ADDRESS, root)
    with zipfile.ZipFile(archive) as content:
        splits = json.loads(content.read("novels/splits.json"))

        def part(name: str) -> list[Document]:
            files = splits[name]["files"]
            return [Document(f, content.read(f"novels/{f}").decode("utf-8-sig")) for f in files]

        return Split(part("train"), part("valid"), part("test"))


def split_documents(
    documents: Sequence[Document], *, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    """Divides whole documents at random, by size: a document that does not fit elsewhere is for training.

    Args:
        valid, test: at most this share of all characters, above 0.

    Raises:
        ValueError: shares out of range, or too few documents for every part to get one.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(f"valid and test must be above 0 and below 1 together, not {valid} and {test}")
    order = list(documents)
    random.Random(seed).shuffle(order)
    total = sum(len(document.text) for document in order)
    split = Split([], [], [])
    room = {"test": test * total, "valid": valid * total, "train": math.inf}
    for document in order:
        part = next(name for name in room if len(document.text) <= room[name])
        room[part] -= len(document.text)
        getattr(split, part).append(document)
    if not all(split):
        raise ValueError(
            f"{len(order)} documents are too few, or too unequal, to divide into "
            f"{valid:.0%} for validation, {test:.0%} for test and the rest for training"
        )
    return split


def repeated_lines(train: Iterable[Document], others: Iterable[Document]) -> RepeatedLines:
    """Counts the lines of other documents that stand, but for white space around them, in `train` too."""
    known = {line for document in train for line in _lines(document)}
    lines = [line for document in others for line in _lines(document)]
    return RepeatedLines(len(lines), sum(line in known for line in lines))


def _lines(document: Document) -> list[str]:
    return [line.strip() for line in document.text.splitlines() if line.strip()]


def train_tokenizer(documents: Sequence[Document], vocabulary_size: int = 1024) -> "Tokenizer":
    """A byte-level BPE tokenizer trained on the spot: it encodes any text and decodes to the same bytes.

    Args:
        vocabulary_size: at least 256, one for each byte; fewer tokens than asked for where the text
            gives no more.
    """
    if vocabulary_size < 256:
        raise ValueError(f"vocabulary_size must be at least 256, not {vocabulary_size}")
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError('a tokenizer needs: pip install "mnemos[text]"') from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def encode(tokenizer: "Tokenizer", text: str) -> Tokens:
    """The tokens of a text, and the line on which each of them starts."""
    encoding = tokenizer.encode(text)
    starts = torch.tensor([start for start, _ in encoding.offsets], dtype=torch.int64)
    breaks = torch.tensor([i for i, letter in enumerate(text) if letter == "\n"], dtype=torch.int64)
    lines = torch.searchsorted(breaks, starts) + 1
    return Tokens(torch.tensor(encoding.ids, dtype=torch.int64), lines)


def count_bytes(tokenizer: "Tokenizer", ids: Int[Tensor, " tokens"]) -> int:
    """Bytes of text that the tokens stand for; a character may be divided between tokens."""
    pieces = [tokenizer.id_to_token(token) or "" for token in ids.tolist()]
    return len("".join(pieces))  # a letter stands for a byte


def bits_per_byte(nats: float, text: str) -> float:
    """The cost of a text, from the sum of its tokens' negative log-probabilities in nats."""
    return nats / math.log(2) / max(len(text.encode()), 1)
