"""Training on a task: it learns, stops where it should, and goes on where it stopped."""

import os
import signal

import pytest
import torch

from mnemos.models.networks import KINDS, Recipe
from mnemos.tasks.algorithms import Copy
from mnemos.training.loop import TrainingConfig
from mnemos.training.task import train_on_task

TASK = Copy(width=2, lengths=(1, 2))
RECIPE = Recipe("lstm", TASK.input_size, TASK.output_size, hidden_size=16)


def train(folder, task=TASK, *, steps, **options):
    torch.manual_seed(0)
    network = RECIPE.build()
    config = TrainingConfig(steps=steps, batch_size=8, learning_rate=1e-2, weight_decay=0.0)
    return network, train_on_task(network, task, folder, config, progress=False, **options)


def test_it_learns_and_stops_at_its_goal(tmp_path):
    _, judged = train(tmp_path, steps=2000, goal=0.05, look_every=50)
    assert judged.error <= 0.05
    assert judged.steps < 2000
    assert judged.steps % 50 == 0


def test_patience_ends(tmp_path):
    """With nothing to learn: every answer is a fresh coin, unknown to the inputs."""

    class Coins(Copy):
        def batch(self, rows, generator):
            batch = super().batch(rows, generator)
            return batch._replace(targets=torch.randint(2, batch.targets.shape, generator=generator).float())

    _, judged = train(tmp_path, Coins(width=2, lengths=(1, 2)), steps=2000, patience=1, look_every=20)
    assert judged.steps < 1000


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole, expected = train(tmp_path / "whole", steps=8)
    draw, asked = Copy.batch, []

    def interrupted(self, rows, generator):
        asked.append(generator)
        if len(asked) == 8 + 5:  # the batches that it is judged on come first
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, rows, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Copy, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "part", steps=8)
    resumed, judged = train(tmp_path / "part", steps=8)
    assert judged == expected
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


def test_another_task_is_another_run(tmp_path):
    train(tmp_path, steps=2)
    with pytest.raises(ValueError, match=r"another run \(its task differ"):
        train(tmp_path, Copy(width=2, lengths=(1, 3)), steps=2)
    assert train(tmp_path, Copy(width=2, lengths=(1, 3)), steps=2, resume=False)[1].steps == 2


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_takes_a_task(name):
    torch.manual_seed(0)
    network = Recipe(name, TASK.input_size, TASK.output_size, hidden_size=8).build()
    batch = TASK.batch(4, torch.Generator().manual_seed(0))
    outputs, state = network(batch.inputs, mask=batch.real)
    loss = TASK.loss(outputs, batch)
    loss.backward()
    assert loss.isfinite()
    again, _ = network(batch.inputs, state)
    assert again.shape == outputs.shape
