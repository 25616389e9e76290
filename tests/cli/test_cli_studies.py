"""`mnemos study`: its list, and its figures."""

import pytest
from invoking import facts_of

from mnemos import studies
from mnemos.studies.study import Study, Threshold


def test_studies_are_listed_and_unknown_ones_refused():
    listed = facts_of("study", "--list")["studies"]
    assert listed
    assert set(listed) <= set(facts_of("study", "tea-leaves", code=1)["error"].replace(",", " ").split())
    assert "say which study" in facts_of("study", code=1)["error"]


def drawn(measured):
    from mnemos.report.drawing import drawing

    with drawing(height=1.5) as (figure, [axes]):
        axes.plot([0, 1], [0, measured["seed"]])
    return figure


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_study_draws_its_figure_even_if_it_fails(monkeypatch, tmp_path, suffix, begins):
    study = Study("one", "One", lambda seed, *_: {"seed": seed}, {"seed": Threshold("<", 2)}, [], drawn)
    monkeypatch.setattr(studies, "load", lambda name: study)
    files = []
    for code, seed in ((0, 1), (1, 2), (1, 2)):
        path = tmp_path / f"{len(files)}{suffix}"
        facts_of("study", "one", "--seed", seed, "--figure", path, code=code)
        files.append(path.read_bytes())
    assert files[0].startswith(begins)
    assert files[0] != files[1] == files[2]


def test_a_figure_that_cannot_be_written_is_refused_before_the_study_runs(monkeypatch, tmp_path):
    def measure(*_):
        raise AssertionError("the study has run")

    def refused(figure, draw=drawn):
        monkeypatch.setattr(studies, "load", lambda name: Study("one", "One", measure, {}, [], draw))
        return facts_of("study", "one", "--figure", figure, code=1)["error"]

    assert "ends in .pdf, .png, .svg" in refused(tmp_path / "figure.jpeg")
    assert f"no folder {tmp_path / 'missing'}" in refused(tmp_path / "missing" / "figure.png")
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.png")
    assert "has no figure" in refused(tmp_path / "figure.png", draw=None)
    assert not (tmp_path / "figure.png").exists()
