import os
import signal

import pytest
import torch

from mnemos.models import hybrid, load_model
from mnemos.tasks.text import Document, train_tokenizer
from mnemos.training import loop
from mnemos.training.language import NOT_A_TARGET, Samples, encode_documents, train_language_model
from mnemos.training.loop import TrainingConfig

DOCUMENTS = [Document("long", "the cat sat on the mat. " * 30), Document("short", "a dog")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, 262)


def fresh(tokenizer):
    torch.manual_seed(0)
    return hybrid(tokenizer.get_vocab_size() + 1, "attention", width=16, heads=2, context=12)


def train(tokenizer, folder, *, steps, documents=DOCUMENTS, model=None, **options):
    config = TrainingConfig(steps=steps, batch_size=4, **options)
    model = model or fresh(tokenizer)
    return train_language_model(model, tokenizer, documents, folder, config, progress=False)


def test_learns_and_saves(tokenizer, tmp_path):
    trained = train(tokenizer, tmp_path, steps=60, learning_rate=3e-2, weight_decay=0.01)
    loaded = load_model(tmp_path)
    assert loaded.fingerprint == trained.fingerprint
    assert not loaded.model.training
    ids = encode_documents(tokenizer, DOCUMENTS)[0][:12].unsqueeze(0)

    @torch.no_grad()
    def cost(model):
        logits, _ = model(ids[:, :-1])
        return float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]))

    assert cost(loaded.model) < 0.6 * cost(fresh(tokenizer))


def test_same_seed_same_model_and_another_seed_another(tokenizer, tmp_path):
    one, two, other = (
        train(tokenizer, tmp_path / name, steps=4, seed=seed)
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_ctrl_c_leaves_a_usable_model_and_the_run_goes_on_to_the_same_end(tokenizer, tmp_path, monkeypatch):
    whole = train(tokenizer, tmp_path / "whole", steps=8)
    batch = Samples.batch

    def interrupted(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tokenizer, tmp_path / "part", steps=8)
    assert signal.getsignal(signal.SIGINT) is handler
    assert load_model(tmp_path / "part").fingerprint != whole.fingerprint
    asked = []
    monkeypatch.setattr(Samples, "batch", lambda self, step: asked.append(step) or batch(self, step))
    resumed = train(tokenizer, tmp_path / "part", steps=8)
    assert min(asked) >= 3  # it did not start over
    assert resumed.fingerprint == whole.fingerprint


def test_a_finished_run_is_not_run_again(tokenizer, tmp_path, monkeypatch):
    first = train(tokenizer, tmp_path, steps=3)
    monkeypatch.setattr(loop.Learner, "training_step", lambda *_: pytest.fail("trained on"))
    assert train(tokenizer, tmp_path, steps=3).fingerprint == first.fingerprint


def test_the_checkpoint_of_another_run_is_refused_and_can_be_passed_over(tokenizer, tmp_path):
    train(tokenizer, tmp_path, steps=2)
    with pytest.raises(ValueError, match=r"another run \(its documents"):
        train(tokenizer, tmp_path, steps=2, documents=DOCUMENTS[:1])
    config = TrainingConfig(steps=2, batch_size=4)
    model = fresh(tokenizer)
    train_language_model(model, tokenizer, DOCUMENTS[:1], tmp_path, config, resume=False, progress=False)


def test_fine_tuning_goes_on_from_the_given_weights(tokenizer, tmp_path):
    base = train(tokenizer, tmp_path / "base", steps=5, learning_rate=1e-2)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    tuned = train(
        tokenizer,
        tmp_path / "tuned",
        steps=1,
        learning_rate=1e-6,
        weight_decay=1e-6,
        documents=DOCUMENTS[1:],
        model=load_model(tmp_path / "base").model,
    )
    for name, weight in tuned.model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-4)


def test_seconds_end_a_run(tokenizer, tmp_path):
    config = TrainingConfig(seconds=0.5, batch_size=4)
    train_language_model(fresh(tokenizer), tokenizer, DOCUMENTS, tmp_path, config, progress=False)
    assert load_model(tmp_path).model.context == 12


def test_samples_lie_within_one_document_and_short_ones_are_padded(tokenizer):
    model = fresh(tokenizer)
    texts = encode_documents(tokenizer, DOCUMENTS)
    samples = Samples(texts, model, TrainingConfig(steps=1, batch_size=4096))
    inputs, targets = samples.batch(0)
    assert inputs.shape == targets.shape == (4096, 12)
    starts = inputs[:, 0] == model.start
    short = (targets == NOT_A_TARGET).any(1)
    assert short.any()
    assert (starts & ~short).any()
    assert (~starts).any()
    assert starts[short].all()
    real = targets[short] != NOT_A_TARGET
    assert (real.sum(1) == len(texts[1])).all()
    assert torch.equal(inputs[:, 1:][~short], targets[:, :-1][~short])
    again = samples.batch(0)
    assert torch.equal(inputs, again[0])
    assert not torch.equal(inputs, samples.batch(1)[0])


@pytest.mark.parametrize(
    "wrong", [{}, {"steps": 0}, {"seconds": -1.0}, {"steps": 1, "batch_size": 0}], ids=str
)
def test_a_run_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        TrainingConfig(**wrong)


def test_no_document_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="at least one document"):
        train(tokenizer, tmp_path, steps=1, documents=[])
