import pytest
import torch

from mnemos.consolidation.layout import Layout


def experiences(rows: int = 6) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randn(rows, 3, 5),
        "targets": torch.arange(rows),
        "done": torch.arange(rows) % 2 == 0,
        "half": torch.randn(rows, 3).half(),
        "pixels": torch.randint(256, (rows, 7), dtype=torch.uint8),
    }


def test_packed_and_unpacked() -> None:
    given = experiences()
    layout = Layout.of(given)
    packed = layout.pack(given)
    assert packed.shape == (6, layout.size)
    for rows in (slice(None), slice(2, 5), [4, 0, 4]):
        for name, value in layout.unpack(packed[rows]).items():
            assert value.dtype == given[name].dtype
            assert torch.equal(value, given[name][rows])


def test_described() -> None:
    layout = Layout.of(experiences())
    assert Layout.from_json(layout.to_json()) == layout
    assert Layout.of({"inputs": torch.zeros(1, 2)}) != layout


def test_every_bit_is_kept() -> None:
    given = {"inputs": torch.tensor([[-0.0, torch.nan, torch.inf, 1e-45]])}
    layout = Layout.of(given)
    kept = layout.unpack(layout.pack(given))["inputs"]
    assert torch.equal(kept.view(torch.int32), given["inputs"].view(torch.int32))


def test_refused() -> None:
    given = experiences()
    layout = Layout.of(given)
    with pytest.raises(ValueError, match="at least one field"):
        Layout({})
    with pytest.raises(ValueError, match=r"have the fields .*'targets'\], not \['inputs'\]"):
        layout.pack({"inputs": given["inputs"]})
    with pytest.raises(ValueError, match=r"as many rows as each other, not \[5, 6\]"):
        layout.pack(given | {"done": given["done"][:5]})
    with pytest.raises(
        ValueError, match=r"inputs must be torch.float32 of shape \(rows, \*\(3, 5\)\), not torch.float64"
    ):
        layout.pack(given | {"inputs": given["inputs"].double()})
