"""The predicate and its SQL are the same function."""

import json
import sqlite3

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from mnemos.stores.filters import parse, parse_read

NAMES = st.sampled_from(["a", "b", "a.b", 'qu"ote', "back\\slash", "", "$", "[0]", "ключ", "a b", "namespac"])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, 2**53, 2**53 + 1, float(2**53)]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "0", "1", "true", "null", "a", "b", "[]"]),
    TEXT,
)
ENTRIES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(NAMES, SCALARS, max_size=2))
METADATA = st.one_of(st.none(), st.dictionaries(NAMES, ENTRIES, max_size=4))
ORDERED = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
ASKED = st.one_of(
    SCALARS,
    st.fixed_dictionaries(
        {},
        optional={
            "in": st.lists(SCALARS, max_size=4),
            "ne": SCALARS,
            "lt": ORDERED,
            "le": ORDERED,
            "gt": ORDERED,
            "ge": ORDERED,
        },
    ).filter(bool),
)
NAMESPACES = st.sampled_from(["default", "ada", "bob's", 'b"ob', "Ада"])
NAMESPACE_ASKED = st.one_of(
    NAMESPACES,
    st.fixed_dictionaries(
        {}, optional={"in": st.lists(NAMESPACES, max_size=3), "ne": NAMESPACES, "lt": NAMESPACES}
    ).filter(bool),
)
WHERE = st.builds(
    lambda entries, namespace: {**entries, **namespace},
    st.dictionaries(NAMES, ASKED, max_size=3),
    st.fixed_dictionaries({}, optional={"namespace": NAMESPACE_ASKED}),
)
RECORDS = st.lists(st.tuples(NAMESPACES, METADATA), min_size=1, max_size=6)


@given(WHERE, RECORDS)
@example({"a": 1}, [("default", {"a": True}), ("default", {"a": 1.0}), ("default", {"a": "1"})])
@example({"a": None}, [("default", {"a": None}), ("default", {}), ("default", None), ("default", {"a": 0})])
@example({"a": {"ne": None}}, [("default", {"a": None}), ("default", {}), ("default", {"a": []})])
@settings(max_examples=600, deadline=None)
def test_sql_means_the_same_as_the_predicate(where, records):
    chosen = parse(where)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE records (position INTEGER, space TEXT, notes TEXT)")
    for position, (namespace, metadata) in enumerate(records):
        text = None if metadata is None else json.dumps(metadata, ensure_ascii=position % 2 == 0)
        database.execute("INSERT INTO records VALUES (?, ?, ?)", (position, namespace, text))
    sql, parameters = chosen.to_sql("space", "records.notes")
    rows = database.execute(f"SELECT position FROM records WHERE {sql} ORDER BY position", parameters)
    expected = [position for position, record in enumerate(records) if chosen.fits(*record)]
    assert [row[0] for row in rows] == expected
    database.close()


@pytest.mark.parametrize(
    ("where", "metadata", "fits"),
    [
        ({}, None, True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 0}, {"a": None}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": {"ne": 1}}, {}, True),
        ({"a": {"ne": 1}}, None, True),
        ({"a": {"ne": 1}}, {"a": [1]}, True),
        ({"a": {"lt": 5}}, {"a": "4"}, False),
        ({"a": {"lt": 5}}, {"a": False}, False),
        ({"a": {"lt": 5}}, {}, False),
        ({"a": {"ge": 5, "lt": 7}}, {"a": 6}, True),
        ({"a": {"ge": 5, "lt": 7}}, {"a": 7}, False),
        ({"a": {"in": [1, "x"]}}, {"a": "x"}, True),
        ({"a": {"in": []}}, {"a": "x"}, False),
        ({"a": {"gt": "b"}}, {"a": "ba"}, True),
        ({"namespace": {"in": ["ada", "bob"]}}, None, True),
        ({"namespace": {"ne": "ada"}}, None, False),
    ],
)
def test_what_fits(where, metadata, fits):
    assert parse(where).fits("ada", metadata) is fits


@pytest.mark.parametrize(
    "where",
    [
        {"a": {"like": "x"}},
        {"a": {}},
        {"a": [1, 2]},
        {"a": {"in": 3}},
        {"a": {"in": "text"}},
        {"a": {"ne": [1]}},
        {"a": {"lt": None}},
        {"a": {"ge": True}},
        {"a": float("nan")},
        {"a": 2**63},
        {"a": "nul\0"},
        {"a": "\ud800"},
        {"a": b"bytes"},
        {1: 2},
        {"namespace": 3},
        {"namespace": {"in": [None]}},
        [("a", 1)],
    ],
)
def test_what_cannot_be_asked(where):
    with pytest.raises(ValueError, match=r"where|namespace"):
        parse(where)


def test_a_read_names_one_namespace():
    assert parse_read(None, "default")[0] == "default"
    namespace, rest = parse_read({"namespace": "ada", "a": 1}, "default")
    assert namespace == "ada"
    assert [condition.name for condition in rest.conditions] == ["a"]
    assert parse_read({"namespace": {"in": ["bob"]}}, "default")[0] == "bob"
    for several in ({"in": ["ada", "bob"]}, {"ne": "ada"}, {"in": []}):
        with pytest.raises(ValueError, match="exactly one namespace"):
            parse_read({"namespace": several}, "default")
