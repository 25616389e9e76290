import os
import zipfile

import pytest
import torch

from mnemos.tasks.omniglot import OmniglotEpisodes, characters, instances, omniglot_episodes

needs_data = pytest.mark.skipif(
    not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with Omniglot"
)


def numbered(classes=7, drawn=4, side=3):
    """Drawings that say what they are: the class in the middle and the drawing beside it."""
    drawings = torch.zeros(classes, drawn, side, side)
    drawings[:, :, 1, 1] = torch.arange(classes).unsqueeze(1) + 1
    drawings[:, :, 1, 2] = torch.arange(drawn) + 1.0
    return drawings


def test_names_hold_for_an_episode_and_are_told_one_step_too_late():
    batch = OmniglotEpisodes(numbered(), classes=3, shots=4).batch(5, torch.Generator().manual_seed(0))
    for inputs, names in zip(batch.inputs, batch.targets, strict=True):
        shown = inputs[:, 4].tolist()
        assert len(set(zip(shown, names.tolist(), strict=True))) == 3
        assert torch.bincount(names).tolist() == [4, 4, 4]
        assert not inputs[0, 9:].any()
        assert inputs[1:, 9:].argmax(1).tolist() == names[:-1].tolist()
        assert len(set(zip(shown, inputs[:, 5].tolist(), strict=True))) == 12  # no drawing comes twice
    assert len({tuple(names.tolist()) for names in batch.targets}) > 1


def test_a_name_says_nothing_of_the_class():
    task = OmniglotEpisodes(numbered(3), classes=3, shots=1)
    batch = task.batch(2000, torch.Generator().manual_seed(1))
    first = batch.targets[batch.inputs[:, :, 4] == 1]
    assert (torch.bincount(first) / 2000 - 1 / 3).abs().max() < 0.05


def test_drawings_are_moved_whole():
    task = OmniglotEpisodes(numbered(side=3), classes=2, shots=3, shift=1)
    images = task.batch(50, torch.Generator().manual_seed(2)).inputs[:, :, :9].unflatten(2, (3, 3))
    rows, columns = (images.amax(dim).argmax(2).unique().tolist() for dim in (3, 2))
    assert rows == [0, 1, 2]
    assert set(columns) <= {0, 1, 2}
    moved_down = images[images[:, :, 2, 1] > 0]
    assert len(moved_down)
    assert not moved_down[:, 0].any()


def test_instances_are_counted_from_one():
    assert instances(torch.tensor([[1, 0, 1, 1, 0]])).tolist() == [[1, 1, 2, 3, 2]]


def test_a_file_that_is_not_omniglot_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNEMOS_DATA"):
        characters()
    with pytest.raises(FileNotFoundError, match="images_background_small1"):
        characters(root=tmp_path)
    (tmp_path / "omniglot").mkdir()
    with zipfile.ZipFile(tmp_path / "omniglot/images_background_small1.zip", "w") as archive:
        archive.writestr("a/b.png", b"")
    with pytest.raises(ValueError, match="SHA-256"):
        characters(root=tmp_path)


@needs_data
def test_characters_are_divided_before_they_are_turned():
    train, test = characters(14, test=36)
    assert train.shape == (400, 20, 14, 14)
    assert test.shape == (144, 20, 14, 14)
    assert 0 <= train.min() < train.max() <= 1
    assert torch.equal(train[100:200], train[:100].rot90(1, (2, 3)))
    again, other = characters(14, test=36), characters(14, test=36, seed=1)
    assert torch.equal(again.test, test)
    assert not torch.equal(other.test, test)
    assert 0.02 < train.mean() < 0.2  # ink is 1, and most is paper


@needs_data
def test_episodes_are_judged_by_characters_that_are_never_learned():
    task = omniglot_episodes(shift=1)
    unseen = task.unseen()
    assert unseen.drawings.shape[0] == 144
    assert unseen.shift == 0
    assert unseen.unseen() is unseen
    assert (task.input_size, task.output_size) == (unseen.input_size, unseen.output_size) == (201, 5)
