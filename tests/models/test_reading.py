"""Reading many documents, and sums over it."""

import math

import pytest
import torch

import mnemos
from mnemos.models import Mixture, hybrid, language_model
from mnemos.models.reading import Point, read_all, totals
from mnemos.tasks.text import Document, train_tokenizer


def test_totals_weigh_every_byte_alike():
    points = [Point("a", 0.5, 10, 4, 3.0, 2.0), Point("b", 1.0, 40, 9, 1.0, 1.0)]
    found = totals(points)
    assert (found.documents, found.bytes_read, found.records) == (2, 40, 9)
    assert found.without == pytest.approx((10 * 3.0 + 30 * 1.0) / 40)
    assert found.with_memory == pytest.approx((10 * 2.0 + 30 * 1.0) / 40)


def test_nothing_read_has_no_cost():
    assert math.isnan(totals([]).without)
    assert totals([]).records == 0


def test_asking_about_some_batches_changes_no_record():
    text = " ".join(str(number) for number in range(2000))
    tokenizer = train_tokenizer([Document("numbers", text)], 256)
    torch.manual_seed(0)
    model = hybrid(tokenizer.get_vocab_size() + 1, "attention", width=16, heads=2, context=64)
    whole = language_model(model.eval(), tokenizer)
    stores, readings = [], []
    for every in (1, 3):
        store = mnemos.open(":memory:", metric="euclidean", fingerprint=whole.fingerprint)
        mixture = Mixture(4.0, 0.5)
        readings.append(list(read_all(whole, store, [Document("a", text)], mixture, ask_every=every)))
        stores.append(store)
    all_asked, some_asked = readings
    assert len(all_asked) == len(some_asked) > 3
    assert [math.isnan(point.with_memory) for point in some_asked] == [
        bool(number % 3) for number in range(len(some_asked))
    ]
    assert some_asked[3].with_memory == all_asked[3].with_memory
    assert some_asked[-1].share == 1.0
    for left, right in zip(*(store.gather(store.ids()) for store in stores), strict=True):
        assert torch.equal(left, right)
