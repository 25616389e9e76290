"""How far every key is from the nearest one that came after it.

Distances are taken in float64. Of many keys float32 products say first, at half the cost, where the
nearest can lie, given a bound on their rounding, and distances are taken only there.
"""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

MANY = 4096  # keys from which on float32 pays
ROWS, COLUMNS = 512, 4096  # keys compared at once: few enough for the products to stay in a cache
GROUP = 32  # keys of which only the nearest is looked at first
PART = 64  # groups measured at once, for the same reason
CROWD = 8  # groups to a key where measuring them would cost more than products in float64
ROUNDING = 2.0**-24  # of float32
TINIEST = 2.0**-126  # below this float32 products may be flushed to zero
LONGEST = 2.0**62  # of a key whose float32 products stay below infinity


def distance_to_later(keys: Shaped[Tensor, "*rows slots keys"]) -> Float64[Tensor, "*rows slots"]:
    """Euclidean distance from each key to the nearest one after it; infinite for the last."""
    single = keys.dtype == torch.float32 or keys.dtype.itemsize < 4
    if keys.ndim == 2 and len(keys) >= MANY and single and keys.device.type == "cpu":
        distance = by_scan(keys.to(torch.float32))
        if distance is not None:
            return distance
    return by_products(keys.double())


def by_products(
    keys: Float64[Tensor, "*rows slots keys"], block: int = 256
) -> Float64[Tensor, "*rows slots"]:
    """All pairs in float64, a block of rows at a time: for batches, and the twin of `by_scan`."""
    halves = keys.square().sum(dim=-1, keepdim=True).mT / 2
    distances = [keys.new_zeros(*keys.shape[:-2], 0)]
    for start in range(0, keys.shape[-2], block):
        rows, later = keys[..., start : start + block, :], keys[..., start:, :]
        # |l - r|²/2 but for |r|²/2, which is the same for the whole row.
        closeness = halves[..., start:] - rows @ later.mT
        within = closeness[..., : rows.shape[-2]]
        within.masked_fill_(torch.ones_like(within, dtype=torch.bool).tril(), torch.inf)
        nearest = closeness.argmin(dim=-1, keepdim=True)
        # Products round, which would set exact duplicates apart: so the distance itself is taken directly.
        distances.append((rows - later.gather(-2, nearest.expand_as(rows))).norm(dim=-1))
    distance = torch.cat(distances, dim=-1)
    last = torch.arange(keys.shape[-2], device=keys.device) == keys.shape[-2] - 1
    return distance.masked_fill(last, torch.inf)


def by_scan(
    keys: Float32[Tensor, "slots keys"], rows: int = ROWS, columns: int = COLUMNS
) -> Float64[Tensor, " slots"] | None:
    """All pairs in float32, and in float64 those that can be nearest; None if these are too many.

    So they are where distances are small beside the keys themselves, and where many keys are equal.

    Args:
        rows, columns: keys compared at once, multiples of GROUP; at most as many rows as columns.
    """
    squares = keys.double().square().sum(dim=1)
    longest = float(squares.max().sqrt())
    if not longest < LONGEST:
        return None
    # The bound of any order of additions, and underflow.
    size = keys.shape[1] + 8
    slack = ROUNDING * size * (squares.sqrt() * longest + longest**2) + TINIEST * size
    # (l, -1) times (r, |r|²/2) is l·r - |r|²/2, the more the nearer. The last group is filled up with
    # keys that are infinitely far away.
    missing = -len(keys) % GROUP
    held = pad(keys, (0, 0, 0, missing), value=torch.inf)
    halves = pad(squares.float() / 2, (0, missing), value=torch.inf)
    asking = pad(keys, (0, 1), value=-1.0).numpy()
    asked = torch.cat([pad(keys, (0, 0, 0, missing)), halves.unsqueeze(1)], dim=1).numpy()
    distances = []
    scratch = np.empty(rows * columns, np.float32)  # a fresh one for each product would cost as much again
    for start in range(0, len(keys), rows):
        closest = _closest(asking[start : start + rows], asked[start:], columns, scratch)
        edge = closest.amax(dim=1) - 2 * slack[start : start + rows].float()
        row, group = (closest >= edge.unsqueeze(1)).nonzero().unbind(1)
        if len(row) > CROWD * len(closest):
            return None
        distances.append(_nearest(keys[start : start + rows], held[start:], row, group))
    return torch.cat(distances)


def _closest(
    asking: Float32[np.ndarray, "slots keys"],
    asked: Float32[np.ndarray, "held keys"],
    columns: int,
    scratch: NDArray[np.float32],
) -> Float32[Tensor, "slots groups"]:
    """The largest product with any of a group, the n-th of which is asked about those after the n-th only."""
    parts = []
    for begin in range(0, len(asked), columns):
        some = asked[begin : begin + columns]
        into = scratch[: len(asking) * len(some)].reshape(len(asking), len(some))
        # NumPy's product: torch's can be told, elsewhere in the program, to round to bfloat16.
        products = torch.from_numpy(np.matmul(asking, some.T, out=into))
        if not begin:
            square = products[:, : len(asking)]
            square.masked_fill_(torch.ones_like(square, dtype=torch.bool).tril(), -torch.inf)
        parts.append(products.unflatten(1, (-1, GROUP)).amax(dim=2))
    return torch.cat(parts, dim=1)


def _nearest(
    keys: Float32[Tensor, "slots keys"],
    held: Float32[Tensor, "held keys"],
    row: Int[Tensor, " pairs"],
    group: Int[Tensor, " pairs"],
) -> Float64[Tensor, " slots"]:
    """The least distance of each key to those of its groups that come after it."""
    least = torch.full((len(keys),), torch.inf, dtype=torch.float64)
    for own, chosen in zip(row.split(PART), group.split(PART), strict=True):
        members = chosen.unsqueeze(1) * GROUP + torch.arange(GROUP)
        distance = (keys[own].double().unsqueeze(1) - held[members].double()).norm(dim=-1)
        distance.masked_fill_(members <= own.unsqueeze(1), torch.inf)
        least.scatter_reduce_(0, own, distance.amin(dim=1), "amin")
    return least
