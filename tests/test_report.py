"""The report: one file, drawn from the measurements alone."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from mnemos import report
from mnemos.demo.results import Evicted, Forgotten, Learned, Recalled, Results, Resumed, Slept, Trained, load
from mnemos.report import figures

VOID = {"meta", "br", "path", "use", "rect", "line", "circle"}


class Balanced(HTMLParser):
    """Raises where tags do not close in the order in which they opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def results() -> Results:
    growth = [
        {"bytes_read": n * 1e3, "records": n * 400, "disk": n * 1e5, "without": 3.0, "with_memory": 3 - n / 9}
        for n in range(1, 10)
    ]
    curve = [
        {"share": share, "records": 4000 * share, "a": 33.0, "b": 90.0 - 60 * share} for share in (0.1, 1.0)
    ]
    along = [{"bytes": n * 100.0, "without": 4.5, "with_memory": 3.4} for n in range(20)]
    answer = {
        "id": 7,
        "token": " <b>",
        "before": "if the header",
        "after": " & more",
        "distance": 1.25,
        "share": 0.5,
        "source": "demo/text/b/train/email/header.py",
        "line": 12,
        "position": 99,
        "age": 90.0,
        "times_read": 2,
    }
    recollection = {
        "phrase": "if the <script>",
        "continuation": " is",
        "alone": " was",
        "weight": 0.6,
        "answers": [answer],
        "truth": " is missing",
    }
    return Results(
        "mnemos demo --seed 3",
        "a machine",
        "2026-01-01",
        3,
        {},
        Trained(120.0, 900, 500_000, 1025, 30, 300_000, [[10, 6.0], [900, 3.5]], 33.0, 300.0),
        Learned(
            20.0, 16, 230_000, 4000, 9_000_000, 33.0, 32.5, 110.0, 97.0, 30.0, 15.0, 20.0, 200, 31, 900,
            growth, curve, along,
        ),
        Resumed(1600, 1700, 4000, 0, 30.0, 30.0, []),
        Recalled([recollection], True, 1, 1),
        Forgotten(
            "the key is under the", " third", " second", " second", "demo/text/b/train/email/header.py",
            300, 280, 0, 299, 0, 299, 100_000, 97.0, 3.0, 97.0, 2.9, 45.0, 45.0,
        ),
        Evicted(
            4000,
            30.0,
            97.0,
            [
                {"policy": name, "records": 2000, "disk": 5_000_000, "b": cost, "seconds": 1.0}
                for name, cost in (("first_in_first_out", 45.0), ("reservoir(3)", 35.0))
            ],
        ),
        Slept(30.0, 33.0, 33.3, 97.0, 30.0, 45.0),
        {"trained": 121.0},
    )  # fmt: skip


def test_the_page_is_one_well_formed_file_that_needs_no_other(results):
    page = report.page(results)
    checker = Balanced()
    checker.feed(page)
    assert checker.open == []
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"url\((?!#)", page)
    assert page.count("<svg") == 6


def test_text_from_documents_cannot_become_markup(results):
    page = report.page(results)
    assert "<script>" not in page
    assert "if the &lt;script&gt;" in page
    assert "&lt;b&gt;" in page


def test_every_verdict_stands_in_the_page(results):
    page = report.page(results)
    assert page.count(">passed<") == 7
    assert results.passed
    results.resumed = dataclasses.replace(results.resumed, differing=1)
    assert not results.passed
    assert report.page(results).count(">failed<") == 1


def test_a_step_that_has_not_run_is_left_out(results):
    results.evicted = results.recalled = None
    page = report.page(results)
    assert page.count(">passed<") == 5
    assert "by each policy" not in page
    assert not results.passed


def test_figures_follow_the_measurements(results):
    learned = results.learned
    assert figures.domains(learned) == figures.domains(learned)
    other = dataclasses.replace(learned, b_with=29.0)
    assert figures.domains(learned) != figures.domains(other)
    assert "with memory 29.0" in figures.domains(other)


def test_results_come_back_from_their_file(results, tmp_path):
    results.save(tmp_path / "results.json")
    assert load(tmp_path / "results.json") == results
    report.write(results, tmp_path / "report.html")
    again = report.page(load(tmp_path / "results.json"))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == again


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("trained", {"perplexity": 301.0}),
        ("learned", {"b_with": 60.0}),
        ("learned", {"a_with": 33.1}),
        ("resumed", {"differing": 1}),
        ("resumed", {"perplexity": 30.000001}),
        ("resumed", {"faults": ["a checksum is wrong"]}),
        ("resumed", {"killed_at": 0}),
        ("resumed", {"killed_at": 4000, "resumed_at": 4000}),
        ("recalled", {"same_as_first_process": False}),
        ("recalled", {"traced": 0}),
        ("recalled", {"traced": 0, "shown": 0}),
        ("forgotten", {"answer_after": " third"}),
        ("forgotten", {"keys_after": 1}),
        ("forgotten", {"keys_before": 298}),
        ("forgotten", {"returned_after": 1}),
        ("forgotten", {"alone_after": 96.9}),
        ("forgotten", {"whole_after": 44.9}),
        ("evicted", {"b_without": 40.0}),
        ("evicted", {"records": 3000}),
        ("slept", {"b_after": 60.0}),
        ("slept", {"a_after": 34.0}),
    ],
)
def test_a_result_that_is_not_as_expected_fails(results, step, change):
    assert getattr(results, step).verdict().passed
    assert not dataclasses.replace(getattr(results, step), **change).verdict().passed
