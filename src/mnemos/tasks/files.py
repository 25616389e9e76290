"""Data that lies beside the project: found by name, known by its checksum, fetched only if asked for."""

import hashlib
import os
import tempfile
import urllib.request
from pathlib import Path


def data_file(
    name: str, sha256: str, url: str, root: str | Path | None = None, *, download: bool = False
) -> Path:
    """A file of the data folder, which is the one that was expected, to the last bit.

    Args:
        name: its path within the folder.
        url: where it can be had.
        root: the data folder; the environment's MNEMOS_DATA if None, and with `download` else
            ~/.cache/mnemos.
        download: whether to fetch a file that is not there.

    Raises:
        FileNotFoundError: there is no folder, or no such file in it. ValueError: it is another file.
    """
    folder = root or os.environ.get("MNEMOS_DATA") or (Path.home() / ".cache/mnemos" if download else None)
    if folder is None:
        raise FileNotFoundError(f"MNEMOS_DATA must name a folder that holds {name}, which is at {url}")
    file = Path(folder) / name
    if not file.is_file():
        if not download:
            raise FileNotFoundError(f"{file}: no such file; it is at {url}")
        _fetch(url, sha256, file)
    elif _digest(file) != sha256:
        raise ValueError(f"{file}: not the file that is expected (its SHA-256 differs)")
    return file


def _fetch(url: str, sha256: str, file: Path) -> None:
    """Puts the file in its place whole and checked, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        part = Path(folder) / file.name
        with urllib.request.urlopen(url, timeout=60) as answer:
            part.write_bytes(answer.read())
        if _digest(part) != sha256:
            raise ValueError(f"{url}: not the file that is expected (its SHA-256 differs)")
        os.replace(part, file)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
