"""What the laws of stores are tried with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemos.stores.base import Metric, Records, Store
from mnemos.testing.records import contents, differences

# Opens the store at a path (the first argument), or makes it. Options are those of `mnemos.open`.
Opener = Callable[..., Store]

FLOAT_METRICS: tuple[Metric, ...] = ("inner_product", "cosine", "euclidean")
FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KEY_KINDS: list[tuple[Metric, torch.dtype]] = [
    *((metric, dtype) for metric in FLOAT_METRICS for dtype in FLOAT_DTYPES),
    ("hamming", torch.uint8),
]


class Clock:
    """A time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def coarse_keys(count: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Keys of few small integers: sums are exact in any order, equal scores and equal keys abound."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 4, (count, width), generator=generator, dtype=torch.uint8)
    return torch.randint(-2, 3, (count, width), generator=generator).to(dtype)


def fine_keys(count: int, width: int, dtype: torch.dtype, seed: int, offset: float = 0.0) -> Tensor:
    """Keys in general position; a large offset makes all of them nearly the same."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (count, width), generator=generator, dtype=torch.uint8)
    return (torch.randn(count, width, generator=generator) + offset).to(dtype)


def numbered(count: int, start: int = 0) -> Tensor:
    """Values that tell whose they are."""
    return torch.stack([torch.arange(start, start + count), -torch.arange(start, start + count)], dim=1)


def fill(store: Store, count: int = 20, namespace: str = "default", seed: int = 0) -> Tensor:
    """Writes records with every kind of content, and returns their ids."""
    metadata: list[dict[str, Any] | None] = [
        {"place": row, "parity": row % 2, "name": f"n{row}", "nested": {"list": [None, True, 0.5]}}
        for row in range(count)
    ]
    metadata[0] = None
    return store.write(
        fine_keys(count, 5, torch.float32, seed),
        numbered(count),
        namespace=namespace,
        metadata=metadata,
        strength=torch.arange(count) / 7,
    )


def check_same(expected: Records, found: Records, what: str, usage: bool = True) -> None:
    faults = differences(expected, found, usage)
    assert not faults, f"{what}: " + "; ".join(faults)


def check_unchanged(store: Store, before: Records, what: str) -> None:
    check_same(before, contents(store), f"the store changed although {what}")


def ids_of(tensor: Tensor) -> list[Any]:
    """A tensor of ids as plain (nested) lists."""
    return tensor.tolist()


def occurrences(folder: Path, texts: Sequence[bytes]) -> list[str]:
    """Files under a folder in which one of these byte strings occurs."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [f"{path.name} holds {text!r}" for path in files for text in texts if text in path.read_bytes()]
