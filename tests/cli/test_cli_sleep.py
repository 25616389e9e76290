"""`mnemos sleep`: a memory goes into a new model's weights."""

from invoking import facts_of, mnemos_

import mnemos


def test_sleeps_into_a_new_model(model, texts, store, tmp_path):
    facts = facts_of("sleep", model, store, tmp_path / "slept", "--old", texts, "--steps", 3)
    assert facts["model"] == str(tmp_path / "slept")
    assert facts["remembered"]["after"] < facts["remembered"]["before"]
    with mnemos.open(store) as memory:
        assert facts["fingerprint"] != memory.stats()["fingerprint"]
    again = facts_of("sleep", model, store, tmp_path / "slept", "--old", texts, "--steps", 3)
    assert again["fingerprint"] == facts["fingerprint"]
    said = mnemos_("recall", tmp_path / "slept", store, "the cat")
    assert said.code == 1
    assert "was made with fingerprint" in said.err


def test_says_it_to_people(model, texts, store, tmp_path):
    said = mnemos_("sleep", model, store, tmp_path / "slept", "--old", texts, "--steps", 2, "--rank", 2)
    assert said.code == 0, said.err
    assert "Nats a token:" in said.out
    assert "of old text" in said.out


def test_what_cannot_be(model, texts, store, tmp_path):
    said = facts_of("sleep", model, store, model, "--old", texts, code=1)
    assert "SLEPT must be another folder than MODEL" in said["error"]
    said = facts_of("sleep", model, tmp_path / "nowhere", tmp_path / "slept", "--old", texts, code=1)
    assert "nowhere" in said["error"]
    said = facts_of("sleep", model, store, tmp_path / "slept", "--old", texts, "--rank", 0, code=1)
    assert "rank must be at least 1, or None, not 0" in said["error"]
    assert not (tmp_path / "slept").exists()
