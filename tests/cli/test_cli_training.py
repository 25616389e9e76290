"""`mnemos train` and `mnemos demo`: what is trained, and what is refused."""

import pytest
import torch
from invoking import facts_of

from mnemos import tasks
from mnemos.cli.training import TASKS
from mnemos.models.networks import load_network


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
