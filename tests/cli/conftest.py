"""A model, two texts and a store that has read them."""

from pathlib import Path

import pytest
from invoking import POEM, make_model, mnemos_


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def texts(tmp_path) -> Path:
    """A folder with two documents."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "cat.txt").write_text(POEM * 5)
    (folder / "dog.txt").write_text("".join(reversed(POEM)) * 5)
    return folder


@pytest.fixture
def store(model, texts, tmp_path) -> Path:
    """A memory that has read both."""
    path = tmp_path / "memory"
    assert mnemos_("read", model, path, texts).code == 0
    return path
