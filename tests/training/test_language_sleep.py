import pytest
import torch

import mnemos
from mnemos.models import hybrid, load_model
from mnemos.models.mixture import perplexity
from mnemos.models.nearest_neighbour import OtherModelError, memorize
from mnemos.models.tuning import evidence
from mnemos.tasks.text import Document, train_tokenizer
from mnemos.training import TrainingConfig, sleep, train_language_model
from mnemos.training.language import Samples

OLD = [Document("old", "the cat sat on the mat and the dog lay on the rug. " * 12)]
NEW = [Document("new", "seven ships sail south; six sink, one swims. " * 12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that knows the old text, and a memory of the new one."""
    path = tmp_path_factory.mktemp("sleep")
    tokenizer = train_tokenizer([*OLD, *NEW], 270)
    torch.manual_seed(0)
    model = hybrid(tokenizer.get_vocab_size() + 1, "attention", width=16, heads=2, context=16)
    config = TrainingConfig(steps=80, batch_size=4, learning_rate=2e-2, weight_decay=0.01)
    train_language_model(model, tokenizer, OLD, path / "model", config, progress=False)
    whole = load_model(path / "model")
    with mnemos.open(path / "memory", metric="euclidean", fingerprint=whole.fingerprint) as store:
        for document in NEW:
            list(memorize(whole, store, document))
    return path


def asleep(folder, out, *, steps=60, old=OLD, **options):
    config = TrainingConfig(steps=steps, batch_size=6, learning_rate=2e-2, weight_decay=0.01)
    model = load_model(folder / "model")
    with mnemos.open(folder / "memory", read_only=True) as store:
        return sleep(model, store, old, out, config, progress=False, **options).model


def cost(whole, documents):
    return perplexity(evidence(whole, None, documents).nats)


@pytest.mark.parametrize("rank", [None, 8])
def test_the_store_can_go(folder, tmp_path, rank):
    """What only the memory held is in the weights, and what they held before still is."""
    before = load_model(folder / "model")
    slept = asleep(folder, tmp_path / "slept", rank=rank)
    assert cost(slept, NEW) < 0.3 * cost(before, NEW)
    assert cost(slept, OLD) < 1.2 * cost(before, OLD)
    again = load_model(tmp_path / "slept")
    assert again.fingerprint == slept.fingerprint != before.fingerprint
    assert all(one.requires_grad for one in slept.model.parameters())
    names = [name for name, _ in again.model.named_parameters()]
    assert names == [name for name, _ in before.model.named_parameters()]
    with (
        mnemos.open(folder / "memory", read_only=True) as store,
        pytest.raises(OtherModelError, match="open the model that it was read with"),
    ):
        sleep(slept, store, OLD, tmp_path / "twice", TrainingConfig(steps=1), progress=False)


def test_says_what_the_night_did(folder, tmp_path):
    """In nats a token, of both kinds of text."""
    config = TrainingConfig(steps=30, batch_size=6, learning_rate=2e-2, weight_decay=0.01)
    model = load_model(folder / "model")
    with mnemos.open(folder / "memory", read_only=True) as store:
        slept = sleep(model, store, OLD, tmp_path / "slept", config, progress=False)
    assert slept.remembered.after < 0.8 * slept.remembered.before
    assert slept.old.before < 0.5 * slept.remembered.before
    assert slept.old.after < 1.5 * slept.old.before


def test_without_old_text_it_forgets(folder, tmp_path):
    """The control: only what is new is replayed."""
    before = load_model(folder / "model")
    focused = asleep(folder, tmp_path / "slept", old=NEW)
    assert cost(focused, OLD) > 2 * cost(before, OLD)


def test_interrupted_and_resumed(folder, tmp_path, monkeypatch):
    whole = asleep(folder, tmp_path / "whole", steps=8)
    batch, asked = Samples.batch, []

    def interrupted(self, step):
        asked.append(step)
        if step == 5:
            raise KeyboardInterrupt
        return batch(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(Samples, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asleep(folder, tmp_path / "parts", steps=8)
    resumed = asleep(folder, tmp_path / "parts", steps=8)
    assert resumed.fingerprint == whole.fingerprint
    with pytest.raises(ValueError, match="is of another run"):
        asleep(folder, tmp_path / "parts", steps=8, rank=2)


def test_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="rank must be at least 1, or None, not 0"):
        asleep(folder, tmp_path / "none", rank=0)
    with pytest.raises(ValueError, match="documents must hold at least one"):
        asleep(folder, tmp_path / "none", old=[])
    model = load_model(folder / "model")
    with (
        mnemos.open(":memory:") as store,
        pytest.raises(ValueError, match="the store holds no text in the namespace 'default'"),
    ):
        sleep(model, store, OLD, tmp_path / "none", TrainingConfig(steps=1))
    assert not (tmp_path / "none").exists()
