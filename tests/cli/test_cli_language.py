"""`mnemos read`, `recall`, `correct` and `tune`: a language model with a memory."""

import json

import pytest
import torch
from invoking import PHRASE, POEM, facts_of, make_model, mnemos_

import mnemos


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


@pytest.mark.parametrize("width", [16, 32])
def test_a_store_of_another_model_is_refused(texts, store, tmp_path, width):
    other = make_model(tmp_path / "other", width=width, seed=1)
    before = facts_of("inspect", store)
    for arguments in (("read", other, store, texts), ("recall", other, store, "the")):
        assert "model" in facts_of(*arguments, code=1)["error"]
    assert facts_of("inspect", store) == before
