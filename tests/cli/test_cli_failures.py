"""Missing files, full disks and Ctrl-C end with a sentence, and with nothing lost."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import torch
from invoking import POEM, facts_of, mnemos_, process

import mnemos
from mnemos.stores.base import StoreError


def test_bad_files_are_refused_with_a_sentence(model, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\x7fELF\0\1\2")
    (tmp_path / "latin.txt").write_bytes("über".encode("latin-1"))
    (tmp_path / "nothing").mkdir()
    for name, said in (
        ("missing.txt", "no such file"),
        ("empty.txt", "empty"),
        ("binary.bin", "binary"),
        ("latin.txt", "UTF-8"),
        ("nothing", "no file"),
    ):
        error = facts_of("read", model, tmp_path / "memory", tmp_path / name, code=1)["error"]
        assert said in error
        assert name in error
    assert not (tmp_path / "memory").exists()


def test_missing_models_and_stores_are_refused(model, texts, store, tmp_path):
    for arguments in (
        ("inspect", tmp_path / "none"),
        ("forget", tmp_path / "none", "--source", "x"),
        ("recall", model, tmp_path / "none", "the"),
        ("recall", tmp_path / "none", store, "the"),
        ("read", tmp_path / "none", tmp_path / "fresh", texts),
    ):
        assert "none" in facts_of(*arguments, code=1)["error"]
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "fresh").exists()


def test_an_error_is_also_told_to_people(tmp_path):
    done = mnemos_("inspect", tmp_path / "none")
    assert done.code == 1
    assert done.out == ""
    assert "there is no store" in " ".join(done.err.split())


def test_a_folder_that_cannot_be_written_is_refused(model, texts, tmp_path):
    if os.geteuid():
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
    else:  # nothing is locked to root but what the kernel keeps
        folder = Path("/sys")
    error = facts_of("read", model, folder / "memory", texts, code=1)["error"]
    assert "memory" in error or "permi" in error.lower() or "read-only" in error.lower()


def test_a_disk_that_takes_no_more_keeps_what_was_acknowledged(model, texts, store):
    """A limit on the size of files stands for a full disk: the kernel refuses the write either way."""
    held = facts_of("inspect", store)["records"]
    (texts / "long.txt").write_text("\n".join(f"{i} {POEM}" for i in range(300)))
    size = max(path.stat().st_size for path in store.rglob("*") if path.is_file())

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, size + 1000))

    with process("read", model, store, texts, "--no-score", "--json", preexec_fn=limit) as reader:
        out, err = reader.communicate()
    assert reader.returncode == 1, err
    assert "is kept" in json.loads(out)["error"]
    assert "Traceback" not in err
    facts = facts_of("inspect", store)
    assert facts["faults"] == []
    assert facts["records"] >= held
    facts_of("read", model, store, texts, "--no-score")
    sources = facts_of("inspect", store)["use"]["sources"]
    assert sources.keys() == {path.as_posix() for path in texts.iterdir()}


def test_ctrl_c_leaves_a_store_that_goes_on(model, texts, tmp_path):
    (texts / "long.txt").write_text("\n".join(f"{i} {POEM}" for i in range(450)))
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with process("read", model, stopped, texts, "--json") as reader:
        held, deadline = 0, time.monotonic() + 100
        while held == 0 and time.monotonic() < deadline and reader.poll() is None:
            time.sleep(0.02)
            held = count(stopped)
        reader.send_signal(signal.SIGINT)
        out, err = reader.communicate()
    assert reader.returncode == 130, err
    assert "stopped" in json.loads(out)["error"]
    assert "Traceback" not in err
    facts = facts_of("read", model, stopped, texts, "--no-score")
    assert facts["found"] >= held > 0
    assert facts["records"] > 0
    facts_of("read", model, whole, texts, "--no-score")
    with mnemos.open(stopped) as one, mnemos.open(whole) as other:
        assert torch.equal(one.ids(), other.ids())
        assert one.get(one.ids()).metadata == other.get(other.ids()).metadata
        for left, right in zip(one.gather(one.ids()), other.gather(other.ids()), strict=True):
            assert torch.equal(left, right)


def count(store: Path) -> int:
    try:
        with mnemos.open(store, read_only=True) as memory:
            return memory.count()
    except (StoreError, FileNotFoundError):
        return 0


def test_errors_of_the_system_become_sentences():
    from mnemos.cli.terminal import sentence

    full = OSError(28, "No space left on device", "/data/x")
    assert "no space left" in sentence(full)
    assert "/data/x" in sentence(full)
    assert sentence(FileNotFoundError(2, "No such file or directory", "a.txt")).endswith(": a.txt")
    assert sentence(KeyError("no record 7")) == "no record 7"
