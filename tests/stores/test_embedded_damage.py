"""Files that were altered, cut or removed are noticed, and never answer as if nothing had happened."""

from pathlib import Path

import pytest
import torch

import mnemos
from mnemos.stores.base import StoreDamagedError, StoreError
from mnemos.stores.segments import ROW, Layout
from mnemos.testing.store_trial import fill

RECORDS = 20


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with mnemos.open(tmp_path / "store") as store:
        fill(store, RECORDS)
    return tmp_path / "store"


def segment(store: Path) -> Path:
    [path] = store.glob("*.segment")
    return path


def layout(store: Path) -> Layout:
    with mnemos.open(store) as opened:
        assert opened.schema is not None
        for power in range(10, 20):
            found = Layout(opened.schema, 1 << power)
            if found.size == segment(store).stat().st_size:
                return found
    raise AssertionError("no capacity gives the size of the segment")


def flip(path: Path, place: int, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("column", ["rows", "keys", "values"])
@pytest.mark.parametrize("bit", [0, 7])
def test_every_byte_of_every_record_counts(store, column, bit):
    columns = layout(store)
    start, width = {
        "rows": (0, ROW.itemsize),
        "keys": (columns.keys_at, columns.key_bytes),
        "values": (columns.values_at, columns.value_bytes),
    }[column]
    for place in range(start, start + RECORDS * width, 7):
        flip(segment(store), place, bit)
        with mnemos.open(store) as damaged:
            faults = damaged.verify()
        assert faults, f"byte {place - start} of the {column} was altered, and verify found nothing"
        flip(segment(store), place, bit)
    with mnemos.open(store) as mended:
        assert not mended.verify()


def test_a_segment_that_was_cut_is_refused(store):
    whole = segment(store).read_bytes()
    segment(store).write_bytes(whole[: len(whole) // 2])
    with mnemos.open(store) as damaged:
        assert "was cut" in damaged.verify()[0]
        with pytest.raises(StoreDamagedError, match=r"was cut"):
            damaged.read(torch.ones(1, 5))


def test_a_segment_that_is_gone_is_missed(store):
    segment(store).unlink()
    with mnemos.open(store) as damaged, pytest.raises(StoreDamagedError, match="missing"):
        damaged.get(torch.tensor([0]))


@pytest.mark.parametrize("keep", [0, 50, 5000])
def test_a_catalogue_that_was_cut_is_refused(store, keep):
    before = segment(store).read_bytes()
    catalogue = store / "catalogue.sqlite"
    catalogue.write_bytes(catalogue.read_bytes()[:keep])
    with pytest.raises(StoreError), mnemos.open(store) as damaged:
        damaged.get(torch.tensor([0]))
    assert segment(store).read_bytes() == before, "what may still be rescued was removed"


def test_a_catalogue_of_noise_is_refused(store):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (9000,), generator=generator, dtype=torch.uint8)
    (store / "catalogue.sqlite").write_bytes(noise.numpy().tobytes())
    with pytest.raises(StoreDamagedError):
        mnemos.open(store)


def test_other_files_and_folders_are_not_stores(tmp_path):
    (tmp_path / "file").write_text("notes")
    with pytest.raises(StoreError, match="is a file"):
        mnemos.open(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("notes")
    with pytest.raises(StoreError, match="something else"):
        mnemos.open(tmp_path / "folder")
    with pytest.raises((StoreError, FileNotFoundError)):
        mnemos.open(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()
