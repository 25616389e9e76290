"""Training on stories: it learns, and goes on where it was stopped."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mnemos.models.end_to_end import MemN2N
from mnemos.tasks.babi import encode, vocabulary
from mnemos.tasks.walks import walks
from mnemos.training.loop import TrainingConfig
from mnemos.training.stories import train_on_stories

STORIES = walks(600)
WORDS = vocabulary(STORIES)
LEARN, CHOOSE = encode(STORIES[:500], WORDS), encode(STORIES[500:], WORDS)


def train(folder, steps, **options):
    torch.manual_seed(0)
    network = MemN2N(len(WORDS), width=20, slots=8, hops=2)
    config = TrainingConfig(steps, batch_size=32, learning_rate=1e-2, weight_decay=0.0)
    return network, train_on_stories(network, LEARN, CHOOSE, folder, config, **options)


def test_it_learns_and_stops_at_its_goal(tmp_path):
    network, error = train(tmp_path, 2000, goal=0.02, look_every=50)
    assert error <= 0.02
    assert not network.memory.linear
    steps = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0.15 * 2000 < steps < 2000  # not while it was linear


def test_a_run_goes_on_to_the_same_end(tmp_path):
    whole, error = train(tmp_path / "whole", 12)
    config = TrainingConfig(12, batch_size=32, learning_rate=1e-2, weight_decay=0.0)
    torch.manual_seed(0)
    part = MemN2N(len(WORDS), width=20, slots=8, hops=2)

    def stop(share, what):
        if share >= 0.5:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train_on_stories(part, LEARN, CHOOSE, tmp_path / "part", config, advance=stop)
    resumed, again = train(tmp_path / "part", 12)
    assert again == error
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


def test_other_stories_and_no_steps_are_refused(tmp_path):
    train(tmp_path, 2)
    torch.manual_seed(0)
    network = MemN2N(len(WORDS), width=20, slots=8, hops=2)
    config = TrainingConfig(2, batch_size=32, learning_rate=1e-2, weight_decay=0.0)
    with pytest.raises(ValueError, match=r"another run \(its stories differ"):
        train_on_stories(network, CHOOSE, CHOOSE, tmp_path, config)
    with pytest.raises(ValueError, match="config must have steps"):
        train_on_stories(network, LEARN, CHOOSE, tmp_path, TrainingConfig(seconds=1.0))


@pytest.mark.skipif(not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with bAbI")
def test_trained_and_talked_to_from_the_command_line(tmp_path):
    def mnemos(*arguments):
        command = [sys.executable, "-m", "mnemos", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    run = str(tmp_path / "run")
    facts = mnemos("train", "stories", run, "--steps", "3", "--width", "8")
    assert facts["questions"] == 900
    assert 0 <= facts["test_error"] <= 1
    [reply] = mnemos("ask", run, "Mary moved to the kitchen.", "Where is Mary?")["replies"]
    assert reply["sentences"] == ["Mary moved to the kitchen."]
