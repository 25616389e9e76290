"""The long form of the study `dnc`, for a moment."""

import os

import pytest

from mnemos.studies import dnc_babi
from mnemos.tasks.babi_words import babi_words

pytestmark = pytest.mark.skipif(
    not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with bAbI"
)


def test_one_network_learns_tasks_jointly_and_is_judged_on_each() -> None:
    reading = dnc_babi.Reading("en", 120, slots=4, width=3, read_heads=1, hidden_size=5, rows=4, steps=3)
    told: list[float] = []
    found = dnc_babi.babi_jointly(0, lambda share, what: told.append(share), tasks=(1, 15), reading=reading)
    assert set(found["babi_error_by_task"]) == {"1", "15"}
    assert 0.5 < found["babi_mean_error"] <= 1
    assert found["babi_failed_tasks"] == 2
    assert told


def test_stories_end_after_their_first_questions() -> None:
    whole = babi_words(1, "en")
    first = dnc_babi._up_to_question(whole, 1)
    assert all(len(story.questions) == 1 for story in first.stories)
    assert len(first._sequences) == len(whole._sequences)
    for (short, _), (long, _) in zip(first._sequences, whole._sequences, strict=True):
        assert 0 < len(short) < len(long)
        assert short.tolist() == long[: len(short)].tolist()
