"""`mnemos forget` and `inspect`: what goes, what stays, and what is found damaged."""

import json

import pytest
from invoking import PHRASE, facts_of, mnemos_

from mnemos.cli.stores import budget_of, chosen


def test_forgetting_a_source(texts, store):
    source = (texts / "cat.txt").as_posix()
    kept = facts_of("inspect", store)["use"]["sources"]
    facts = facts_of("forget", store, "--source", source)
    assert facts["forgotten"] == kept.pop(source)
    assert facts["records"] == sum(kept.values())
    assert facts_of("inspect", store)["use"]["sources"] == kept


def test_forgetting_a_source_forgets_its_corrections(model, texts, store):
    facts_of("correct", model, store, PHRASE, " quixotic zebra")
    facts_of("forget", store, "--source", (texts / "cat.txt").as_posix())
    facts_of("forget", store, "--source", (texts / "dog.txt").as_posix())
    assert facts_of("inspect", store)["records"] == 0


def test_forgetting_by_filter_and_by_policy(store):
    total = facts_of("inspect", store)["records"]
    early = facts_of("forget", store, "--where", "position<10", "--dry-run")
    assert early == {"forgotten": 20, "records": total - 20, "bytes_freed": 0, "dry_run": True}
    assert facts_of("inspect", store)["records"] == total
    assert facts_of("forget", store, "--where", "position<10")["records"] == total - 20
    halved = facts_of("forget", store, "--policy", "first_in_first_out", "--keep", "50%")
    assert halved["records"] == (total - 20) // 2
    assert facts_of("forget", store, "--policy", "reservoir(1)", "--keep", "3")["records"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to forget"),
        (("--policy", "reservoir(1)"), "belong together"),
        (("--keep", "3"), "belong together"),
        (("--policy", "by_mood", "--keep", "3"), "no retention policy"),
        (("--policy", "reservoir(1)", "--keep", "lots"), "--keep"),
        (("--where", "position"), "--where"),
    ],
)
def test_forgetting_is_not_guessed(store, arguments, said):
    before = facts_of("inspect", store)
    assert said in facts_of("forget", store, *arguments, code=1)["error"]
    assert facts_of("inspect", store) == before


def test_budgets_and_conditions():
    assert [budget_of(keep, 7) for keep in ("3", "50%", "0", "100%")] == [3, 3, 0, 7]
    with pytest.raises(ValueError, match="at most 100%"):
        budget_of("101%", 7)
    assert chosen(None, ["position>=3", "position<9", "namespace=ada"]) == {
        "position": {"ge": 3, "lt": 9},
        "namespace": "ada",
    }
    with pytest.raises(ValueError, match="already fixed"):
        chosen(None, ["position=3", "position<9"])


def test_inspecting_counts_use_and_finds_damage(store):
    facts = facts_of("inspect", store)
    assert facts["faults"] == []
    assert facts["use"]["never_read"] == facts["records"]
    assert "checksum" in mnemos_("inspect", store).out
    segment = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    place = next(i for i, byte in enumerate(content) if byte)
    content[place] ^= 255
    segment.write_bytes(content)
    done = mnemos_("inspect", store, "--json")
    assert done.code == 1
    assert json.loads(done.out).get("faults") or json.loads(done.out).get("error")
