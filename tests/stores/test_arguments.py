"""What a store is given is checked before anything is written."""

import numpy as np
import pytest
import torch

from mnemos.stores import arguments
from mnemos.stores.base import Schema

FLOATS = Schema("float32", 3, "int64", (2,), "inner_product")
KEYS = torch.ones(2, 3)
VALUES = torch.ones(2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("dtype", "name", "metric"),
    [
        (torch.float32, "float32", "inner_product"),
        (torch.float16, "float16", "inner_product"),
        (torch.bfloat16, "bfloat16", "inner_product"),
        (torch.uint8, "bits", "hamming"),
    ],
)
def test_the_first_write_fixes_the_schema(dtype, name, metric):
    schema, batch = arguments.prepare_write(None, None, KEYS.to(dtype), torch.zeros(2, dtype=torch.bool))
    assert schema == Schema(name, 3, "bool", (), metric)
    assert batch.strength.tolist() == [1, 1]
    assert batch.metadata == [None, None]


def test_arrays_and_lists_are_tensors_too():
    schema, batch = arguments.prepare_write(None, "cosine", [[1.0, 2.0]], np.zeros((1, 2)))
    assert schema == Schema("float32", 2, "float64", (2,), "cosine")
    halves = Schema("float16", 2, "int64", (), "euclidean")
    _, batch = arguments.prepare_write(halves, None, [[1, 2]], [7])
    assert batch.keys.dtype == torch.float16
    assert batch.values.tolist() == [7]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keys": torch.ones(2, 4)}, r"keys must be of shape \(records, 3\)"),
        ({"keys": torch.ones(3)}, "keys must be of shape"),
        ({"keys": torch.ones(2, 3, dtype=torch.float64)}, "keys must be torch.float32"),
        ({"keys": torch.tensor([[1.0, 1, 1], [1, torch.nan, 1]])}, "NaN or infinity, first in row 1"),
        ({"keys": torch.full((2, 3), torch.inf)}, "NaN or infinity, first in row 0"),
        ({"keys": [[1, 2], [3]]}, "keys cannot be read as a tensor"),
        ({"values": torch.ones(3, 2, dtype=torch.int64)}, "values holds 3 records and keys 2"),
        ({"values": torch.ones(2, 3, dtype=torch.int64)}, "values must be torch.int64 of shape"),
        ({"values": torch.ones(2, 2)}, "values must be torch.int64"),
        ({"metadata": [{}]}, "metadata holds 1 records"),
        ({"metadata": {"a": 1}}, "metadata must be a list"),
        ({"metadata": [None, 3]}, r"metadata\[1\] must be a mapping"),
        ({"metadata": [None, {"a": torch.nan}]}, "JSON has no number"),
        ({"metadata": [None, {1: 2}]}, "strings for keys"),
        ({"metadata": [None, {"a": (1, 2)}]}, "tuple, which is not a JSON type"),
        ({"metadata": [None, {"a": [{"b": b""}]}]}, "bytes, which is not a JSON type"),
        ({"metadata": [None, {"a": 2**64}]}, "does not fit 64 bits"),
        ({"metadata": [None, {"a": "\0"}]}, "NUL"),
        ({"strength": torch.tensor([1.0, -1.0])}, "finite and not negative"),
        ({"strength": torch.tensor([1.0, torch.nan])}, "finite and not negative"),
        ({"strength": torch.ones(3)}, "one number per record"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    given = {"keys": KEYS, "values": VALUES, "metadata": None, "strength": None, **changed}
    with pytest.raises(ValueError, match=message):
        arguments.prepare_write(FLOATS, None, **given)


def test_a_bottomless_object_is_refused():
    nested: dict = {}
    nested["again"] = nested
    with pytest.raises(ValueError, match="nested more than"):
        arguments.prepare_write(FLOATS, None, KEYS, VALUES, [nested, None])


@pytest.mark.parametrize(("metric", "dtype"), [("hamming", torch.float32), ("cosine", torch.uint8)])
def test_a_metric_that_does_not_suit_the_keys(metric, dtype):
    with pytest.raises(ValueError, match="cannot be compared"):
        arguments.prepare_write(None, metric, KEYS.to(dtype), VALUES)


def test_keys_of_a_dtype_that_no_store_keeps():
    with pytest.raises(ValueError, match="keys must be float32, float16"):
        arguments.prepare_write(None, None, KEYS.double(), VALUES)


def test_queries():
    assert arguments.prepare_queries(FLOATS, KEYS.double()).dtype == torch.float32
    with pytest.raises(ValueError, match="queries must be of a floating-point dtype"):
        arguments.prepare_queries(FLOATS, KEYS.long())
    with pytest.raises(ValueError, match="queries must be packed bits"):
        arguments.prepare_queries(Schema("bits", 3, "int64", (), "hamming"), KEYS)
    with pytest.raises(ValueError, match="queries holds NaN"):
        arguments.prepare_queries(FLOATS, KEYS.double() * 1e300)  # infinite in float32


def test_ids():
    assert arguments.prepare_ids([3, 1], unique=True).tolist() == [3, 1]
    assert arguments.prepare_ids(torch.tensor([3, 3])).tolist() == [3, 3]
    for wrong in (torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([True])):
        with pytest.raises(ValueError, match="one-dimensional int64"):
            arguments.prepare_ids(wrong)
    with pytest.raises(ValueError, match=r"\[3\] more than once"):
        arguments.prepare_ids([3, 1, 3], unique=True)


def test_namespaces_and_numbers():
    for wrong in ("", None, 3, "a\0b"):
        with pytest.raises(ValueError, match="namespace"):
            arguments.prepare_namespace(wrong)
    for wrong in (0, -1, True, 1.0):
        with pytest.raises(ValueError, match="k must be an integer"):
            arguments.check_k(wrong)
    with pytest.raises(ValueError, match="keep must be an integer"):
        arguments.check_keep(-1)


def test_nothing_of_the_batch_is_shared_with_autograd():
    keys = torch.ones(2, 3, requires_grad=True)
    _, batch = arguments.prepare_write(FLOATS, None, keys, VALUES)
    assert not batch.keys.requires_grad
