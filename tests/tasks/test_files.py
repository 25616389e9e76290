"""Data is found, or fetched whole and checked, or refused with nothing left behind."""

import gzip
import hashlib
from pathlib import Path

import pytest

from mnemos.tasks.files import data_file

CONTENT = b"what was expected"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "folder/file.txt"


@pytest.fixture
def source(tmp_path) -> Path:
    file = tmp_path / "source"
    file.write_bytes(CONTENT)
    return file


def test_a_file_is_fetched_once(source, tmp_path):
    root = tmp_path / "data"
    file = data_file(NAME, SHA256, source.as_uri(), root, download=True)
    assert file == root / NAME
    assert file.read_bytes() == CONTENT
    source.unlink()
    assert data_file(NAME, SHA256, source.as_uri(), root) == file


def test_another_file_leaves_nothing_behind(source, tmp_path):
    source.write_bytes(CONTENT + b"!")
    with pytest.raises(ValueError, match=r"source: .*SHA-256"):
        data_file(NAME, SHA256, source.as_uri(), tmp_path / "data", download=True)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_changed_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"file\.txt: .*SHA-256"):
        data_file(NAME, SHA256, "https://example.org", tmp_path, download=True)


def test_nothing_is_fetched_unasked(source, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="it is at file://"):
        data_file(NAME, SHA256, source.as_uri(), tmp_path / "data")
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNEMOS_DATA"):
        data_file(NAME, SHA256, source.as_uri())


def test_without_a_data_folder_what_is_fetched_is_kept_in_the_home(source, tmp_path, monkeypatch):
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    file = data_file(NAME, SHA256, source.as_uri(), download=True)
    assert file == tmp_path / ".cache/mnemos" / NAME


def test_what_a_gzip_file_holds_is_what_counts(source, tmp_path):
    source.write_bytes(gzip.compress(CONTENT, 1))
    file = data_file(NAME, SHA256, source.as_uri(), tmp_path, download=True, gzipped=True)
    file.write_bytes(gzip.compress(CONTENT, 9, mtime=0))
    assert file.read_bytes() != source.read_bytes()
    assert data_file(NAME, SHA256, source.as_uri(), tmp_path, gzipped=True) == file
    file.write_bytes(gzip.compress(CONTENT + b"!"))
    with pytest.raises(ValueError, match=r"file\.txt: .*SHA-256"):
        data_file(NAME, SHA256, source.as_uri(), tmp_path, gzipped=True)


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-3], lambda packed: packed[:12] + b"?" * 20, lambda packed: CONTENT]
)
def test_a_damaged_gzip_file_is_refused_and_not_kept(damage, source, tmp_path):
    source.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(ValueError, match=r"source: not a gzip file, or a damaged one"):
        data_file(NAME, SHA256, source.as_uri(), tmp_path / "data", download=True, gzipped=True)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
