"""Records taken over from another store as they are."""

import pytest
import torch

import mnemos
from mnemos.testing.records import contents
from mnemos.testing.store_trial import check_same, fill


def test_ids_must_be_new_and_ascending(tmp_path):
    with mnemos.open(":memory:") as source, mnemos.open(tmp_path / "store") as store:
        fill(source)
        records = contents(source)
        store.adopt(records, 30)
        check_same(records, contents(store), "adopted")
        later = records._replace(ids=records.ids + 30, usage=records.usage._replace(ids=records.ids + 30))
        for wrong, next_id in (
            (records, 60),
            (later, 49),
            (later._replace(ids=later.ids.flip(0)), 60),
        ):
            with pytest.raises(ValueError, match="ids must ascend from 30"):
                store.adopt(wrong, next_id)
            assert store.count() == 20
        store.adopt(later, 60)
        assert store.count() == 40
        assert fill(store)[0] == 60
        assert not store.verify()
        assert torch.equal(store.ids()[:20], records.ids)
