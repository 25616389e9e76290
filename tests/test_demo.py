"""The demo: in miniature from the first step to the report, and the tools that its claims rest on."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict

import pytest
import torch

import mnemos
from mnemos.demo import texts
from mnemos.demo.answers import stands_in
from mnemos.demo.crash import differing_records
from mnemos.demo.erasure import in_other_records, keys_in_files
from mnemos.demo.plan import Plan
from mnemos.demo.run import run
from mnemos.progress import silent
from mnemos.tasks.text import Document


def small(documents: list[Document], count: int, letters: int) -> list[Document]:
    """The beginnings of some documents."""
    long = [document for document in documents if len(document.text) > letters]
    return [Document(document.name, document.text[:letters]) for document in long[:count]]


def go(plan: Plan, watch=None):
    domains = {name: small(documents, 18, 700) for name, documents in texts.defaults().items()}
    return run(plan, "a test", watch or (lambda title: nullcontext(silent)), domains=domains)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan(tmp_path_factory.mktemp("demo"), steps=240, vocabulary=300, width=16, layers=1, phrases=1)


@pytest.fixture(scope="module")
def results(plan):
    """A run in miniature. The model is poor, but what is exact must be exact."""
    return go(plan)


def test_a_reader_that_was_killed_ends_where_an_uninterrupted_one_does(results):
    verdict = results.resumed.verdict()
    assert verdict.passed, verdict
    assert results.resumed.resumed_at >= results.resumed.killed_at > 0


def test_recall_in_a_new_process_is_the_same_and_traced_to_its_file(results):
    verdict = results.recalled.verdict()
    assert verdict.passed, verdict


def test_what_was_forgotten_is_gone_and_what_was_corrected_is_said(results):
    verdict = results.forgotten.verdict()
    assert verdict.passed, verdict
    assert results.forgotten.records >= results.forgotten.keys_sought > 0


def test_reading_helps_and_its_growth_is_measured(results):
    learned = results.learned
    assert learned.b_with < learned.b_without
    assert [point["records"] for point in learned.growth][-1] == learned.records
    assert learned.curve[-1]["b"] == learned.b_with
    assert learned.curve[0]["b"] > learned.curve[-1]["b"]


def test_every_policy_keeps_half(results):
    half = results.evicted.records // 2
    assert {policy["records"] for policy in results.evicted.policies} == {half}
    assert len(results.evicted.policies) == len(mnemos.retention.POLICY_NAMES)


def test_sleep_goes_into_the_weights(results):
    slept = results.slept
    assert slept.b_after < slept.b_before
    assert slept.kept > 0


def test_the_memory_is_left_as_it_was_read(plan, results):
    with mnemos.open(plan.memory) as store:
        assert store.count() == results.learned.records
        assert store.verify() == []


def test_the_report_and_the_measurements_lie_in_the_folder(plan, results):
    assert json.loads(plan.results.read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(results)))
    assert "</html>" in plan.report.read_text(encoding="utf-8")


def test_a_run_that_was_stopped_goes_on_with_its_step(plan, results):
    stopped = json.loads(plan.results.read_text(encoding="utf-8"))
    stopped["evicted"] = stopped["slept"] = None
    plan.results.write_text(json.dumps(stopped), encoding="utf-8")
    titles = []

    def watch(title):
        titles.append(title)
        return nullcontext(silent)

    again = go(plan, watch)
    assert titles == ["lets go of half, by each policy", "sleeps, until the memory can be dropped"]
    assert again.slept.b_after == results.slept.b_after
    assert again.learned == results.learned
    assert without_clock(again) == without_clock(results)


def without_clock(results) -> list[float]:
    """What each policy left, but for the one whose half-life runs by the clock on the wall."""
    policies = results.evicted.policies
    return [policy["b"] for policy in policies if not policy["policy"].startswith("decayed_strength")]


def make_store(path, keys, **facts):
    store = mnemos.open(path)
    metadata = [{"source": "a"}] * len(keys)
    store.write(keys, torch.arange(len(keys)).int(), metadata=metadata, **facts)
    return store


@pytest.fixture
def keys():
    return torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).half()


def test_a_record_that_differs_in_anything_is_counted(tmp_path, keys):
    with make_store(tmp_path / "one", keys) as one, make_store(tmp_path / "two", keys) as two:
        assert differing_records(one, two) == 0
        changed = keys[3:4].clone()
        changed[0, 0] += 0.5
        two.update(torch.tensor([3]), keys=changed)
        two.update(torch.tensor([5]), values=torch.tensor([9]).int())
        two.update(torch.tensor([7]), metadata=[{"source": "b"}])
        two.update(torch.tensor([8]), strength=torch.tensor([3.0]))
        two.delete(torch.tensor([9]))
        assert differing_records(one, two) == differing_records(two, one) == 5


def test_keys_are_found_at_any_byte_of_any_file(tmp_path, keys):
    raw = keys.numpy().tobytes()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(b"abc" + raw[:320] + b"xyz")
    (tmp_path / "two").write_bytes(b"\0" * (1 << 22))
    assert keys_in_files(tmp_path, keys) == 10
    (tmp_path / "two").write_bytes(b"\0" * ((1 << 22) - 7) + raw[320:])  # across the end of a chunk
    assert keys_in_files(tmp_path, keys) == 50
    assert keys_in_files(tmp_path, keys + 1) == 0


def test_a_key_that_another_record_shares_is_known(tmp_path, keys):
    with make_store(tmp_path / "store", torch.cat([keys, keys[:1]])) as store:
        own = torch.arange(3)
        assert in_other_records(store, store.gather(own)[0], own).tolist() == [True, False, False]


def test_deleting_leaves_bytes_and_compacting_does_not(tmp_path, keys):
    """What the demo says of forgetting would be empty if the search could not see the difference."""
    with make_store(tmp_path / "store", keys) as store:
        store.delete(torch.arange(10))
        assert keys_in_files(tmp_path / "store", keys[:10]) == 10
        store.compact()
        assert keys_in_files(tmp_path / "store", keys[:10]) == 0
        assert keys_in_files(tmp_path / "store", keys[10:]) == 40


def test_a_record_is_traced_only_to_its_own_place():
    documents = {"a": "one two\nthree four\nthree five\n"}
    answer = {"source": "a", "before": "three ", "token": "five", "after": "\n", "line": 3}
    assert stands_in(documents, answer)
    assert not stands_in(documents, {**answer, "line": 2})
    assert not stands_in(documents, {**answer, "token": "six"})
    assert not stands_in(documents, {**answer, "source": "b"})
    assert stands_in(documents, {**answer, "token": "four", "line": 2})


@pytest.mark.slow
def test_the_whole_demo_passes(tmp_path):
    """All six results at their thresholds, from the command that `make run` runs."""
    command = [sys.executable, "-m", "mnemos", "demo", "--folder", str(tmp_path / "demo"), "--json"]
    threads = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=threads)
    facts = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert facts["passed"]
    print({name: round(seconds, 1) for name, seconds in facts["seconds"].items()})
