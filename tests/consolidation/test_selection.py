import pytest
import torch

from mnemos.consolidation.selection import (
    Selection,
    Traces,
    balanced,
    by_strength,
    drawn,
    interleaved,
    recent,
    similar_to,
    uniform,
    weights_of,
)


def traces(count: int = 6) -> Traces:
    keys = torch.eye(count)
    return Traces(
        torch.arange(count), torch.tensor([0, 0, 0, 0, 1, 2])[:count], torch.arange(count).double(), keys
    )


def shares(selection: Selection) -> torch.Tensor:
    weights = weights_of(selection, traces())
    return weights / weights.sum()


def test_drawn_in_proportion() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    found = drawn(weights.cumsum(0), 40_000, torch.Generator().manual_seed(0)).bincount(minlength=5) / 40_000
    assert (found[weights == 0] == 0).all()
    torch.testing.assert_close(found.double(), weights / 4, rtol=0, atol=0.01)


def test_the_last_spot_is_of_the_last_with_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding up to the whole sum draws nothing that has no weight."""
    monkeypatch.setattr(torch, "rand", lambda rows, **_: torch.ones(rows, dtype=torch.float64))
    cumulative = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64)
    assert drawn(cumulative, 2, torch.Generator()).tolist() == [1, 1]


def test_weights() -> None:
    assert shares(uniform()).tolist() == pytest.approx([1 / 6] * 6)
    assert shares(balanced()).tolist() == pytest.approx([1 / 12] * 4 + [1 / 3] * 2)
    assert shares(by_strength(2.0)).tolist() == pytest.approx([n**2 / 55 for n in range(6)])
    ratio = shares(recent(2.0))
    assert (ratio[2:] / ratio[:-2]).tolist() == pytest.approx([2] * 4)


def test_similar_is_uniform_without_sharpness() -> None:
    new = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0, 0.0]])
    assert shares(similar_to(new, 0.0)).tolist() == pytest.approx([1 / 6] * 6)
    order = shares(similar_to(new)).argsort(descending=True)
    assert order[:2].tolist() == [1, 2]


def test_interleaved() -> None:
    found = shares(interleaved(uniform(), recent(1.0), 0.25, since=4))
    assert found.tolist() == pytest.approx([1 / 16] * 4 + [1 / 4, 1 / 2])
    for since in (0, 99):  # only one kind is there
        assert shares(interleaved(uniform(), uniform(), 0.25, since=since)).tolist() == pytest.approx(
            [1 / 6] * 6
        )
    assert shares(interleaved(uniform(), uniform(), 1.0, since=0)).tolist() == pytest.approx([1 / 6] * 6)


def test_refused() -> None:
    for make in (
        lambda: by_strength(-1.0),
        lambda: recent(0.0),
        lambda: interleaved(uniform(), uniform(), 2.0, since=0),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()
    with pytest.raises(ValueError, match="odd gave weights"):
        weights_of(Selection("odd", lambda traces: -traces.strength), traces())
