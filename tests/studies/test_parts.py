"""Studies that go on where they were interrupted."""

import pytest

from mnemos.studies.parts import Parts, part
from mnemos.studies.study import Study, Threshold

RUN = {"study": "example", "seed": 1}


def example(stop_at=None):
    """A study of three parts, which is interrupted before one of them; and what it has measured."""
    measured = []

    def one(name):
        if name == stop_at:
            raise KeyboardInterrupt
        measured.append(name)
        return {"share": 0.1 + len(measured) / 3, "by_step": {"8": None}}

    def measure(seed, full, advance):
        parts = {name: part(name, lambda name=name: one(name)) for name in "abc"}
        return {"parts": parts, "last": parts["c"]["share"]}

    return Study("example", "An example", measure, {"last": Threshold(">", 0)}, []), measured


def test_an_interrupted_study_measures_what_is_missing_and_no_more(tmp_path):
    whole = example()[0].run(1).measured
    study, measured = example(stop_at="c")
    with pytest.raises(KeyboardInterrupt):
        study.run(1, keep=tmp_path / "parts")
    assert measured == ["a", "b"]
    study, measured = example()
    measured += ["a", "b"]  # as the whole run had them before it
    assert study.run(1, keep=tmp_path / "parts").measured == whole
    assert measured == ["a", "b", "c"]
    study, measured = example()
    assert study.run(1, keep=tmp_path / "parts").measured == whole
    assert measured == []


def test_without_a_file_every_run_measures_all_and_keeps_nothing(tmp_path):
    study, measured = example()
    study.run(1)
    study.run(1)
    assert measured == ["a", "b", "c"] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seed", "full"), [(2, False), (1, True)])
def test_a_file_of_another_run_is_refused_and_left_as_it_is(tmp_path, seed, full):
    path = tmp_path / "parts"
    example()[0].run(1, keep=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds parts of .*: name another file"):
        example()[0].run(seed, full=full, keep=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "a letter", "a letter\n", '{"part": "a"}\n[1]\n'])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "letter"
    path.write_text(content)
    with pytest.raises(ValueError, match="letter is no file of parts"):
        Parts(path, RUN)
    assert path.read_text() == content


def test_half_a_line_is_no_part(tmp_path):
    path = tmp_path / "parts"
    parts = Parts(path, RUN)
    parts.part("a", lambda: 1)
    parts.part("b", lambda: 2)
    path.write_bytes(path.read_bytes()[:-3])
    again = Parts(path, RUN)
    assert again.done == {"a": 1}
    assert again.part("b", lambda: 3) == 3
    assert Parts(path, RUN).done == {"a": 1, "b": 3}
