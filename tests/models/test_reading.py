"""Sums over a reading."""

import math

import pytest

from mnemos.models.reading import Point, totals


def test_totals_weigh_every_byte_alike():
    points = [Point("a", 0.5, 10, 4, 3.0, 2.0), Point("b", 1.0, 40, 9, 1.0, 1.0)]
    found = totals(points)
    assert (found.documents, found.bytes_read, found.records) == (2, 40, 9)
    assert found.without == pytest.approx((10 * 3.0 + 30 * 1.0) / 40)
    assert found.with_memory == pytest.approx((10 * 2.0 + 30 * 1.0) / 40)


def test_nothing_read_has_no_cost():
    assert math.isnan(totals([]).without)
    assert totals([]).records == 0
