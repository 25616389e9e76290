"""The mixture beside a model."""

import json
import math

import pytest

from mnemos.models.mixture import Mixture
from mnemos.models.tuning import FILE, default_mixture, load_mixture, save_mixture


@pytest.mark.parametrize("mixture", [Mixture(2.0, 0.5), Mixture(1.0, 0.7, 3.0, 0.25)])
def test_a_mixture_comes_back(tmp_path, mixture):
    save_mixture(tmp_path, mixture)
    assert load_mixture(tmp_path, 64) == mixture
    text = (tmp_path / FILE).read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))  # an infinity would be no JSON


def test_without_a_file_there_is_a_guess_on_the_scale_of_the_keys(tmp_path):
    narrow, wide = load_mixture(tmp_path, 64), load_mixture(tmp_path, 256)
    assert narrow == default_mixture(64)
    # Distances grow with the square root of the width, their squares with the width.
    assert wide.distance == pytest.approx(2 * narrow.distance)
    assert wide.temperature == pytest.approx(4 * narrow.temperature)
    assert math.isfinite(narrow.distance)


@pytest.mark.parametrize("text", ["", "[]", '{"weight": 1}', '{"mood": 2}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        load_mixture(tmp_path, 64)
