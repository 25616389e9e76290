"""Data that lies beside the project: found by name, known by its checksum, fetched only if asked for."""

import gzip
import hashlib
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path


def data_file(
    name: str,
    sha256: str,
    url: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    gzipped: bool = False,
) -> Path:
    """A file of the data folder, which is the one that was expected, to the last bit.

    Args:
        name: its path within the folder.
        url: where it can be had.
        root, download: as in `data_folder`.
        gzipped: whether `sha256` is of what the file unpacks to: the same bytes have many .gz files.

    Raises:
        FileNotFoundError: there is no folder, or no such file in it. ValueError: it is another file.
    """

    def check(file: Path, source: str | Path) -> None:
        try:
            with gzip.open(file) if gzipped else file.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{source}: not a gzip file, or a damaged one: {error}") from None
        if found != sha256:
            raise ValueError(f"{source}: not the file that is expected (its SHA-256 differs)")

    file = data_folder(name, url, root, download=download) / name
    if file.is_file():
        check(file, file)
    elif download:
        fetch(url, file, lambda part: check(part, url))
    else:
        raise FileNotFoundError(f"{file}: no such file; it is at {url}")
    return file


def data_folder(name: str, url: str, root: str | Path | None = None, *, download: bool = False) -> Path:
    """The folder in which data is looked for.

    Args:
        name, url: of the file that is wanted, to say so where there is no folder.
        root: the folder; the environment's MNEMOS_DATA if None, and with `download` else ~/.cache/mnemos.
        download: whether what is not there is to be fetched.

    Raises:
        FileNotFoundError: none is named.
    """
    folder = root or os.environ.get("MNEMOS_DATA") or (Path.home() / ".cache/mnemos" if download else None)
    if folder is None:
        raise FileNotFoundError(f"MNEMOS_DATA must name a folder that holds {name}, which is at {url}")
    return Path(folder)


def fetch(url: str, file: Path, check: Callable[[Path], None]) -> None:
    """Puts a file in its place whole and checked, or not at all.

    Args:
        check: raises if what was fetched is not what was expected.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        part = Path(folder) / file.name
        with urllib.request.urlopen(url, timeout=60) as answer:
            part.write_bytes(answer.read())
        check(part)
        os.replace(part, file)
