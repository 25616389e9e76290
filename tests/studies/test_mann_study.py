"""The parts of the study `mann` that do not need its minutes."""

from dataclasses import replace

import pytest
import torch

from mnemos.progress import silent
from mnemos.studies import mann
from mnemos.studies.algorithms import teach
from mnemos.tasks.omniglot import OmniglotEpisodes

FORM = mann.Form(
    side=8, eye_steps=1, steps=1, slots=12, width=8, heads=1, hidden_size=16, control_hidden_size=16, tried=50
)
CONTESTANTS = ["mann", "lstm", "lstm_longer", "feed_forward"]


@pytest.fixture
def task() -> OmniglotEpisodes:
    """Characters that nobody could mistake: each is its own pixels, in ink of several strengths."""
    generator = torch.Generator().manual_seed(0)
    characters = (torch.rand(8, 1, 8, 8, generator=generator) > 0.5).float()
    strengths = torch.linspace(0.5, 1.0, 4).view(1, 4, 1, 1)
    return OmniglotEpisodes(characters * strengths, classes=3, shots=3)


def test_an_eye_tells_characters_apart_and_the_unseen_are_seen_by_it_too(task: OmniglotEpisodes) -> None:
    torch.manual_seed(0)
    pixels = replace(task, drawings=task.drawings[:6], others=task.drawings[6:], shift=1)
    seen = mann.seen_by_an_eye(pixels, 60, 0, silent)
    assert seen.input_size == mann.FEATURES + 3
    for drawings, classes in ((seen.drawings, 6), (seen.unseen().drawings, 2)):
        assert drawings.shape == (classes, 4, 1, mann.FEATURES)
        cosines = (drawings.flatten(0, 2) @ drawings.flatten(0, 2).T / mann.FEATURES).view(
            classes, 4, classes, 4
        )
        same = torch.eye(classes, dtype=torch.bool).view(classes, 1, classes, 1).expand_as(cosines)
        assert cosines[same].min() > cosines[~same].max()


def test_all_contestants_are_taught_and_tried(task: OmniglotEpisodes) -> None:
    torch.manual_seed(0)
    networks = mann.contestants(task, FORM)
    assert list(networks) == CONTESTANTS
    for network in networks.values():
        before = mann._tried(network, task, 50, seed=0)
        assert before["accuracy"].keys() == {"1", "2", "3"}
        assert before == mann._tried(network, task, 50, seed=0)
        assert teach(network, task, 2, **mann.PACES["mann"]._asdict(), clip=1.0, seed=0, advance=silent) > 0
        assert mann._tried(network, task, 50, seed=0) != before


def test_the_control_has_at_least_as_many_parameters() -> None:
    task = OmniglotEpisodes(torch.zeros(5, 10, 1, mann.FEATURES))
    sizes = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in mann.contestants(task, mann.SHORT).items()
    }
    assert sizes["lstm"] >= sizes["mann"]


def test_a_new_character_is_hit_by_one_in_the_names_that_are_left() -> None:
    told = torch.tensor([[[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1.0]]])
    answers = torch.tensor([[2, 1, 2, 0, 1]])
    hits = mann.hits_by_names_left(answers, told)
    torch.testing.assert_close(hits, torch.tensor([[1 / 3, 0, 1, 0, 0]]))


def test_guessing_among_the_names_left_is_explained_and_nothing_more(task: OmniglotEpisodes) -> None:
    """Who answers with the first name not told is right as often as the names left explain."""
    batch = task.batch(4000, torch.Generator().manual_seed(0))
    told = batch.inputs[..., -3:]
    answers = told.cumsum(1).argmin(-1)
    first = mann.instances(batch.targets) == 1
    hits = mann.hits_by_names_left(answers, told)[first].mean().item()
    right = (answers == batch.targets)[first].double().mean().item()
    assert hits == pytest.approx((1 / 3 + 1 / 2 + 1) / 3, abs=0.01)
    assert right == pytest.approx(hits, abs=0.02)


def test_the_figure_shows_accuracies_and_one_episode(task: OmniglotEpisodes) -> None:
    torch.manual_seed(0)
    network = mann.contestants(task, FORM)["mann"]
    shown = mann._shown(network, task, seed=0)
    assert len(shown["read_weights"]) == len(shown["write_weights"]) == len(shown["names"]) == 9
    for weights in shown["read_weights"] + shown["write_weights"][1:]:
        assert sum(weights) == pytest.approx(1, abs=0.01)
    accuracy = {"1": 0.3, "2": 0.8, "3": 0.9}
    found = {name: {"accuracy": accuracy} for name in CONTESTANTS}
    lines, writing, reading = mann.draw({"contestants": found, **shown}).axes
    assert len(lines.lines) == 5
    assert writing.images[0].get_array().shape == (12, 9)
    assert reading.images[0].get_array().shape == (8, 8)
