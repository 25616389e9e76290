"""A thousand kills of the embedded store, and thousands of random histories."""

import pytest
from hypothesis import settings

import mnemos
from mnemos.testing.crash import kill_again_and_again
from mnemos.testing.store_history import check_histories

KILLS = 1000


@pytest.mark.slow
def test_a_thousand_kills(tmp_path):
    report = kill_again_and_again(mnemos.open, tmp_path / "store", KILLS, seed=1)
    print(f"\n{report}")
    assert report.clean, [report.lost[:3], report.partial[:3], report.faults[:3]]
    assert report.kills == KILLS


@pytest.mark.slow
def test_many_histories():
    check_histories(mnemos.open, True, settings(max_examples=500, stateful_step_count=50))
