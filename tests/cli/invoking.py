"""How the tests of the command line run it, and on what."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from typer.testing import CliRunner

from mnemos.cli import app
from mnemos.models.checkpoint import save_model
from mnemos.models.hybrid import hybrid
from mnemos.tasks.text import Document, train_tokenizer

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
    model = hybrid(tokenizer.get_vocab_size() + 1, "attention", width=width, heads=2, context=64)
    save_model(folder, model, tokenizer)
    return folder
