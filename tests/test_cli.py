"""The command line: answers, errors, and a reference that is the help itself.

`python tests/test_cli.py` writes docs/commands.md anew.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import mnemos
from mnemos import studies, tasks
from mnemos.cli import app
from mnemos.cli.stores import budget_of, chosen
from mnemos.cli.training import TASKS
from mnemos.models.checkpoint import save_model
from mnemos.models.networks import load_network
from mnemos.models.transformer import small_transformer
from mnemos.stores.base import StoreError
from mnemos.studies.study import Study, Threshold
from mnemos.tasks.text import Document, train_tokenizer

REFERENCE = Path(__file__).parent.parent / "docs" / "commands.md"
# Of `mnemos train`, whose commands are the tasks and differ in nothing else, one stands for all.
COMMANDS = [
    "train text",
    "train copy",
    "train stories",
    *(command.callback.__name__ for command in app.registered_commands),
]
POEM = "the cat sat on the mat and the dog sat on the log.\n"
PHRASE = "the cat sat on the"
RUNNER = CliRunner()


def mnemos_(*arguments) -> SimpleNamespace:
    """Runs a command in this process: its code, stdout and stderr."""
    done = RUNNER.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)


def facts_of(*arguments, code: int = 0) -> dict:
    """Runs a command with --json: stdout is one JSON object in one line, and nothing else."""
    done = mnemos_(*arguments, "--json")
    assert done.code == code, done.err
    [line] = done.out.splitlines()
    facts = json.loads(line)
    assert isinstance(facts, dict)
    return facts


def process(*arguments, **options) -> subprocess.Popen:
    """Starts a command in a process of its own."""
    command = [sys.executable, "-m", "mnemos", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **options
    )


def make_model(folder: Path, width: int = 16, seed: int = 0) -> Path:
    """A model with random weights: how well it predicts does not matter here."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer([Document("poem", POEM * 20)], 300)
    model = small_transformer(tokenizer.get_vocab_size() + 1, width=width, layers=1, heads=2, context=64)
    save_model(folder, model, tokenizer)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def texts(tmp_path) -> Path:
    """A folder with two documents."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "cat.txt").write_text(POEM * 5)
    (folder / "dog.txt").write_text("".join(reversed(POEM)) * 5)
    return folder


@pytest.fixture
def store(model, texts, tmp_path) -> Path:
    """A memory that has read both."""
    path = tmp_path / "memory"
    assert mnemos_("read", model, path, texts).code == 0
    return path


def reference() -> str:
    """docs/commands.md as it should be: the help of every command."""
    head = (
        "# Commands\n\n"
        "Every command has `--help` and `--json`: exactly one JSON object on stdout, progress and errors on "
        'stderr. An error ends with code 1 and, with `--json`, as `{"error": "..."}`; a command that cannot '
        "be understood ends with code 2. Ctrl-C ends with code 130 and leaves a usable store. This page is "
        "written by `python tests/test_cli.py`.\n"
    )
    parts = [
        f"\n## {name}\n\n```text\n{mnemos_(*name.split(), '--help').out.strip()}\n```\n" for name in COMMANDS
    ]
    return head + "".join(parts)


def test_the_reference_is_the_help():
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run: python tests/test_cli.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    done = mnemos_(*name.split(), "--help")
    assert done.code == 0
    assert f"Example: mnemos {name}" in " ".join(done.out.split())
    assert "--json" in done.out


def test_the_command_line_loads_no_library_that_takes_long():
    heavy = {"lightning", "tokenizers", "matplotlib", "faiss"}
    code = f"import sys, mnemos.cli; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_makes_a_model_that_reads(texts, tmp_path):
    size = ("--width", 16, "--layers", 1, "--vocabulary", 256)
    facts = facts_of("train", "text", tmp_path / "model", texts, "--steps", 2, *size)
    assert facts["documents"] == 2
    assert facts["parameters"] > 0
    assert facts_of("read", tmp_path / "model", tmp_path / "memory", texts)["records"] > 0


def test_a_memory_is_trained_on_a_task_and_goes_on(tmp_path):
    run = ("train", "copy", tmp_path / "run", "--memory", "lstm", "--hidden-size", 8)
    sizes = ("--set", "width=2", "--set", "lengths=1,2", "--batch-size", 4)
    first = facts_of(*run, *sizes, "--steps", 3)
    assert (first["task"], first["memory"], first["steps"]) == ("copy", "lstm", 3)
    assert 0 <= first["error"] <= 1
    assert facts_of(*run, *sizes, "--steps", 5)["steps"] == 5
    network, recipe, facts = load_network(tmp_path / "run")
    assert facts["task"] == {"name": "copy", "sizes": {"width": 2, "lengths": [1, 2]}}
    assert network(torch.zeros(1, 4, recipe.input_size))[0].shape == (1, 4, recipe.output_size)
    assert "of another run" in facts_of(*run, "--set", "width=3", code=1)["error"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--memory", "lost"), "memory must be one of"),
        (("--memory", "delta-rule", "--set", "wdth=3"), "delta-rule cannot be built"),
        (("--memory", "lstm", "--set", "width"), "--set must be NAME=VALUE, not 'width'"),
        (("--memory", "lstm", "--set", "lengths=3,1"), "lengths must be"),
        (("--memory", "lstm", "--steps", 0), "steps must be above 0"),
    ],
    ids=str,
)
def test_training_that_makes_no_sense_is_refused(tmp_path, options, error):
    assert error in facts_of("train", "copy", tmp_path / "run", *options, code=1)["error"]
    assert not (tmp_path / "run" / "config.json").exists()


def test_every_task_has_its_command():
    assert set(TASKS) == set(tasks.TASKS)


def test_the_demo_is_what_its_options_say(tmp_path, monkeypatch):
    plans = []

    def stop(plan, command, watch):
        plans.append(plan)
        raise ValueError("that was all")

    monkeypatch.setattr("mnemos.demo.run.run", stop)
    assert (
        facts_of("demo", "--folder", tmp_path, "--seed", 3, "--seconds", 7, code=1)["error"] == "that was all"
    )
    [plan] = plans
    assert (plan.folder, plan.seconds, plan.steps, plan.seed) == (tmp_path, 7.0, None, 3)


def test_reading_reports_what_the_memory_is_worth(model, texts, tmp_path):
    facts = facts_of("read", model, tmp_path / "memory", texts)
    assert facts["documents"] == 2
    assert facts["bytes_read"] == 10 * len(POEM)
    assert facts["records"] == facts["holds"] > 0
    assert facts["without"] > 0
    assert facts["with_memory"] > 0


def test_reading_again_finds_everything_there(model, texts, store):
    facts = facts_of("read", model, store, texts)
    assert facts["records"] == 0
    assert facts["found"] == facts["holds"] > 0
    assert "Nothing new" in mnemos_("read", model, store, texts).out


def test_reading_without_score_writes_the_same_records(model, texts, store, tmp_path):
    facts_of("read", model, tmp_path / "other", texts, "--no-score")
    with mnemos.open(store) as one, mnemos.open(tmp_path / "other") as other:
        for left, right in zip(one.gather(one.ids()), other.gather(other.ids()), strict=True):
            assert torch.equal(left, right)


def test_recall_tells_where_its_answers_come_from(model, texts, store):
    facts = facts_of("recall", model, store, PHRASE, "--show", 3, "--tokens", 2)
    assert len(facts["answers"]) == 3
    first = facts["answers"][0]
    assert first["source"] == (texts / "cat.txt").as_posix()
    # A document's first tokens are seen under the same context as the PHRASE, so the key is the same
    # but for its rounding to float16.
    assert first["distance"] < 0.05
    assert (first["before"] + first["token"] + first["after"]).strip() in POEM * 5
    assert first["line"] == 1
    assert first["times_read"] == 0
    again = facts_of("recall", model, store, PHRASE, "--show", 3)
    assert [answer["times_read"] for answer in again["answers"]] == [1, 1, 1]


def test_recall_shows_a_page_to_people(model, store):
    page = mnemos_("recall", model, store, PHRASE).out.replace("\n", "")  # the path may be wrapped
    assert "cat.txt:1" in page
    assert "distance" in page


def test_correcting_changes_the_answer_and_says_which_records(model, store):
    facts = facts_of("correct", model, store, PHRASE, " log")
    assert facts["before"] != facts["after"]
    assert facts["after"] == facts_of("recall", model, store, PHRASE, "--tokens", 1)["continuation"]
    with mnemos.open(store) as memory:
        records = memory.get(torch.tensor(facts["changed"]))
    assert all(record["corrected"] for record in records.metadata)


def test_an_answer_of_several_tokens_is_recalled_whole(model, store):
    answer = " quixotic zebra"
    written = facts_of("correct", model, store, PHRASE, answer)["written"]
    recalled = facts_of("recall", model, store, PHRASE, "--tokens", len(written) + 1)
    assert recalled["continuation"] == answer
    with mnemos.open(store) as memory:
        sources = {record["source"] for record in memory.get(torch.tensor(written)).metadata}
    assert all(source.startswith("correction of ") for source in sources)


def test_a_correction_that_cannot_be_made_changes_nothing(model, store):
    (model / "mixture.json").write_text(json.dumps({"temperature": 1.0, "weight": 0.0}))
    try:
        before = facts_of("inspect", store)
        error = facts_of("correct", model, store, PHRASE, " zebra", code=1)["error"]
        assert "counts for 0%" in error
        assert facts_of("inspect", store) == before
    finally:
        (model / "mixture.json").unlink()


def test_a_phrase_that_nothing_is_near_gets_a_record_of_its_own(model, store):
    narrow = {"temperature": 1.0, "weight": 0.95, "distance": 0.01, "softness": 0.001}
    (model / "mixture.json").write_text(json.dumps(narrow))
    try:
        facts = facts_of("correct", model, store, "a phrase of something else", " log")
        assert facts["changed"] == []
        assert facts["written"]
        assert facts["after"] == " log"
    finally:
        (model / "mixture.json").unlink()


def test_tuning_is_kept_beside_the_model(model, texts, store):
    unseen = texts.parent / "unseen.txt"
    unseen.write_text(POEM * 2)
    try:
        facts = facts_of("tune", model, store, unseen)
        assert json.loads((model / "mixture.json").read_text()) == json.loads(
            json.dumps(facts)
        )  # through JSON, where an infinite distance is the word
    finally:
        (model / "mixture.json").unlink()


def test_forgetting_a_source(texts, store):
    source = (texts / "cat.txt").as_posix()
    kept = facts_of("inspect", store)["use"]["sources"]
    facts = facts_of("forget", store, "--source", source)
    assert facts["forgotten"] == kept.pop(source)
    assert facts["records"] == sum(kept.values())
    assert facts_of("inspect", store)["use"]["sources"] == kept


def test_forgetting_a_source_forgets_its_corrections(model, texts, store):
    facts_of("correct", model, store, PHRASE, " quixotic zebra")
    facts_of("forget", store, "--source", (texts / "cat.txt").as_posix())
    facts_of("forget", store, "--source", (texts / "dog.txt").as_posix())
    assert facts_of("inspect", store)["records"] == 0


def test_forgetting_by_filter_and_by_policy(store):
    total = facts_of("inspect", store)["records"]
    early = facts_of("forget", store, "--where", "position<10", "--dry-run")
    assert early == {"forgotten": 20, "records": total - 20, "bytes_freed": 0, "dry_run": True}
    assert facts_of("inspect", store)["records"] == total
    assert facts_of("forget", store, "--where", "position<10")["records"] == total - 20
    halved = facts_of("forget", store, "--policy", "first_in_first_out", "--keep", "50%")
    assert halved["records"] == (total - 20) // 2
    assert facts_of("forget", store, "--policy", "reservoir(1)", "--keep", "3")["records"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to forget"),
        (("--policy", "reservoir(1)"), "belong together"),
        (("--keep", "3"), "belong together"),
        (("--policy", "by_mood", "--keep", "3"), "no retention policy"),
        (("--policy", "reservoir(1)", "--keep", "lots"), "--keep"),
        (("--where", "position"), "--where"),
    ],
)
def test_forgetting_is_not_guessed(store, arguments, said):
    before = facts_of("inspect", store)
    assert said in facts_of("forget", store, *arguments, code=1)["error"]
    assert facts_of("inspect", store) == before


def test_budgets_and_conditions():
    assert [budget_of(keep, 7) for keep in ("3", "50%", "0", "100%")] == [3, 3, 0, 7]
    with pytest.raises(ValueError, match="at most 100%"):
        budget_of("101%", 7)
    assert chosen(None, ["position>=3", "position<9", "namespace=ada"]) == {
        "position": {"ge": 3, "lt": 9},
        "namespace": "ada",
    }
    with pytest.raises(ValueError, match="already fixed"):
        chosen(None, ["position=3", "position<9"])


def test_inspecting_counts_use_and_finds_damage(store):
    facts = facts_of("inspect", store)
    assert facts["faults"] == []
    assert facts["use"]["never_read"] == facts["records"]
    assert "checksum" in mnemos_("inspect", store).out
    segment = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    place = next(i for i, byte in enumerate(content) if byte)
    content[place] ^= 255
    segment.write_bytes(content)
    done = mnemos_("inspect", store, "--json")
    assert done.code == 1
    assert json.loads(done.out).get("faults") or json.loads(done.out).get("error")


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


@pytest.mark.parametrize("width", [16, 32])
def test_a_store_of_another_model_is_refused(texts, store, tmp_path, width):
    other = make_model(tmp_path / "other", width=width, seed=1)
    before = facts_of("inspect", store)
    for arguments in (("read", other, store, texts), ("recall", other, store, "the")):
        assert "model" in facts_of(*arguments, code=1)["error"]
    assert facts_of("inspect", store) == before


def test_an_error_is_also_told_to_people(tmp_path):
    done = mnemos_("inspect", tmp_path / "none")
    assert done.code == 1
    assert done.out == ""
    assert "there is no store" in " ".join(done.err.split())


def test_what_cannot_be_understood_ends_with_code_two():
    assert mnemos_("inspect").code == 2
    assert mnemos_("dream").code == 2


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


def test_studies_are_listed_and_unknown_ones_refused():
    listed = facts_of("study", "--list")["studies"]
    assert listed
    assert set(listed) <= set(facts_of("study", "tea-leaves", code=1)["error"].replace(",", " ").split())
    assert "say which study" in facts_of("study", code=1)["error"]


def drawn(measured):
    from mnemos.report.drawing import drawing

    with drawing(height=1.5) as (figure, [axes]):
        axes.plot([0, 1], [0, measured["seed"]])
    return figure


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_study_draws_its_figure_even_if_it_fails(monkeypatch, tmp_path, suffix, begins):
    study = Study("one", "One", lambda seed, *_: {"seed": seed}, {"seed": Threshold("<", 2)}, [], drawn)
    monkeypatch.setattr(studies, "load", lambda name: study)
    files = []
    for code, seed in ((0, 1), (1, 2), (1, 2)):
        path = tmp_path / f"{len(files)}{suffix}"
        facts_of("study", "one", "--seed", seed, "--figure", path, code=code)
        files.append(path.read_bytes())
    assert files[0].startswith(begins)
    assert files[0] != files[1] == files[2]


def test_a_figure_that_cannot_be_written_is_refused_before_the_study_runs(monkeypatch, tmp_path):
    def measure(*_):
        raise AssertionError("the study has run")

    def refused(figure, draw=drawn):
        monkeypatch.setattr(studies, "load", lambda name: Study("one", "One", measure, {}, [], draw))
        return facts_of("study", "one", "--figure", figure, code=1)["error"]

    assert "ends in .pdf, .png, .svg" in refused(tmp_path / "figure.jpeg")
    assert f"no folder {tmp_path / 'missing'}" in refused(tmp_path / "missing" / "figure.png")
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.png")
    assert "has no figure" in refused(tmp_path / "figure.png", draw=None)
    assert not (tmp_path / "figure.png").exists()


def test_errors_of_the_system_become_sentences():
    from mnemos.cli.terminal import sentence

    full = OSError(28, "No space left on device", "/data/x")
    assert "no space left" in sentence(full)
    assert "/data/x" in sentence(full)
    assert sentence(FileNotFoundError(2, "No such file or directory", "a.txt")).endswith(": a.txt")
    assert sentence(KeyError("no record 7")) == "no record 7"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
