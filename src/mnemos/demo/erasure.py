"""Looking for keys in the raw bytes of files, to see whether what was forgotten is really gone."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from mnemos.stores.base import Store

PROBE = 8  # bytes of each key that are looked for first
CHUNK = 1 << 22  # bytes of a file looked at together


def keys_in_files(folder: Path, keys: Shaped[Tensor, "records keys"]) -> int:
    """How many of the keys stand somewhere in the files of a folder, at whatever byte they begin."""
    wanted = {key.tobytes() for key in _bytes(keys)}
    probes = np.unique(_bytes(keys)[:, :PROBE].copy().view(np.uint64).ravel())
    found: set[bytes] = set()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found |= _in_file(file, wanted, probes)
    return sum(key.tobytes() in found for key in _bytes(keys))


def _in_file(file: Path, wanted: set[bytes], probes: NDArray[np.uint64]) -> set[bytes]:
    size = len(next(iter(wanted), b""))
    content = np.fromfile(file, np.uint8)
    found = set()
    for begin in range(0, len(content), CHUNK):
        part = content[begin : begin + CHUNK + size]  # a key may lie across the end of a chunk
        for place in _places(part, probes):
            candidate = part[place : place + size].tobytes()
            if candidate in wanted:
                found.add(candidate)
    return found


def _places(content: NDArray[np.uint8], probes: NDArray[np.uint64]) -> list[int]:
    """Where a probe begins; every shift of the words is tried, since nothing says that keys are aligned."""
    places: list[int] = []
    for shift in range(PROBE):
        words = content[shift : len(content) - (len(content) - shift) % PROBE].view(np.uint64)
        if len(words) and words.any() and len(probes):
            nearest = np.searchsorted(probes, words).clip(max=len(probes) - 1)
            places += (np.flatnonzero(probes[nearest] == words) * PROBE + shift).tolist()
    return places


def in_other_records(
    store: Store, keys: Shaped[Tensor, "records keys"], ids: Int[Tensor, " records"]
) -> Bool[Tensor, " records"]:
    """Which keys also belong to another record than those of `ids`: they will rightly stay."""
    own = set(ids.tolist())
    others = set()
    for part in store.ids().split(8192):
        rest = part[[int(id_) not in own for id_ in part]]
        others |= {key.tobytes() for key in _bytes(store.gather(rest)[0])}
    return ids.new_tensor([key.tobytes() in others for key in _bytes(keys)]).bool()


def _bytes(keys: Shaped[Tensor, "records keys"]) -> NDArray[np.uint8]:
    """The bytes of each key as a row."""
    return keys.contiguous().numpy().view(np.uint8).reshape(len(keys), -1)
