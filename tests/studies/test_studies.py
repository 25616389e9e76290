"""The frame of the studies; and, in the slow tier, every study on a seed that it was not tuned on."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from mnemos import studies
from mnemos.progress import between, silent
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Outcome, Study, Threshold

KEYS = ["name", "seed", "full", "measured", "thresholds", "paper", "seconds", "passed"]
UNTUNED_SEED = 4711
NEEDS_DATA = {"similarity-weighted-replay", "split-mnist"}


def outcome(**measured: float) -> Outcome:
    thresholds = {"accuracy": Threshold(">=", 0.9), "loss": Threshold("<", 0.1)}
    paper = [Figure("accuracy", 0.99, "Somebody 1990")]
    return Outcome("example", 3, False, measured, thresholds, paper, 1.25)


@pytest.mark.parametrize(
    ("accuracy", "loss", "passed"),
    [
        (0.9, 0.05, True),
        (0.89, 0.05, False),
        (0.95, 0.1, False),
        (math.nan, 0.0, False),
        (1.0, math.nan, False),
    ],
)
def test_passed_is_all_thresholds_met(accuracy: float, loss: float, passed: bool) -> None:
    assert outcome(accuracy=accuracy, loss=loss).passed is passed


def test_a_threshold_on_nothing_is_an_error() -> None:
    with pytest.raises(KeyError, match="loss"):
        outcome(accuracy=1.0)


def test_facts_are_strict_json() -> None:
    facts = outcome(accuracy=0.95, loss=math.nan).facts()
    assert list(facts) == KEYS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["measured"] == {"accuracy": 0.95, "loss": None}
    assert facts["thresholds"] == {"accuracy": [">=", 0.9], "loss": ["<", 0.1]}
    assert facts["paper"] == [{"what": "accuracy", "value": 0.99, "source": "Somebody 1990"}]


def test_a_study_measures_with_the_seed_given() -> None:
    def measure(seed, full, advance):
        between(advance, 0.5, 1.0)(0.5, "half of the second half")
        return {"seed": seed, "full": full}

    seen: list[float] = []
    study = Study("example", "An example", measure, {"seed": Threshold("==", 7)}, [])
    found = study.run(7, full=True, advance=lambda share, what: seen.append(share))
    assert found.passed
    assert found.measured == {"seed": 7, "full": True}
    assert found.seconds >= 0
    assert seen == [0.75]
    assert not study.run(8).passed


def drawn(measured):
    from mnemos.report.drawing import WITH, drawing

    with drawing(height=2.0) as (figure, [axes]):
        axes.plot([int(count) for count in measured["curve"]], list(measured["curve"].values()), color=WITH)
    return figure


DRAWN = Study(
    "example", "An example", lambda seed, full, advance: {"curve": {1: (0.5,), 2: (seed,)}}, {}, [], drawn
)


def test_a_study_draws_the_same_from_what_it_measured_and_from_its_json() -> None:
    found = DRAWN.run(3)
    kept = json.loads(json.dumps(found.facts()))["measured"]
    [line] = DRAWN.figure(found.measured).axes[0].lines
    [again] = DRAWN.figure(kept).axes[0].lines
    assert line.get_xydata().tolist() == again.get_xydata().tolist() == [[1.0, 0.5], [2.0, 3.0]]


def test_a_study_without_a_figure_says_so() -> None:
    with pytest.raises(ValueError, match="'example' has no figure"):
        Study("example", "An example", lambda *_: {}, {}, []).figure({})


def test_running_a_study_does_not_wait_for_matplotlib() -> None:
    program = "import sys; from mnemos import studies; [studies.load(name) for name in studies.names()]"
    program += "; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_every_study_is_what_its_name_says() -> None:
    assert studies.names() == sorted(studies.names())
    for name in studies.names():
        study = studies.load(name)
        assert study.name == name
        assert study.title
        assert study.thresholds  # a study of our own store has no paper
    with pytest.raises(ValueError, match=r"no study 'delta'.*delta-rule"):
        studies.run("delta")


def test_fit_minimises_and_can_stop_early() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    inputs = torch.randn(64, 3)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3

    def loss(step: int) -> torch.Tensor:
        return (model(inputs) - targets).square().mean()

    assert fit(model, loss, 400, learning_rate=0.1, advance=silent) == 400
    assert loss(0) < 1e-4
    assert fit(model, loss, 400, learning_rate=0.1, advance=silent, done=lambda step: step == 5) == 5


def test_the_delta_rule_study_passes_and_repeats_itself() -> None:
    found = studies.run("delta-rule", seed=5)
    assert found.passed
    again = studies.load("delta-rule").measure(5, False, silent)
    assert again == found.measured


@pytest.mark.slow
@pytest.mark.parametrize("name", studies.names())
def test_study_passes(name: str, tmp_path) -> None:
    if name in NEEDS_DATA and not os.environ.get("MNEMOS_DATA"):
        pytest.skip("MNEMOS_DATA names no folder with its data")
    study = studies.load(name)
    found = study.run(seed=UNTUNED_SEED)
    if study.draw:
        from mnemos.report import drawing

        drawing.save(study.figure(found.measured), tmp_path / "figure.png")
    print(json.dumps(found.facts(), allow_nan=False))
    assert found.passed
