"""Sparse memory finetuning: new facts go to slots that little else uses, and can be taken back.

Lin et al. 2025, "Continual Learning via Sparse Memory Finetuning" (arXiv 2510.15103). A network with a large
table, `ProductKey` for instance, learns something new by changing a few rows of the table and nothing else:
those that the new facts read often and a background corpus seldom. What it knew before reads other rows.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, final

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Background(NamedTuple):
    """What reads the slots when nothing new is learned."""

    batches: int
    read_in: Int[Tensor, " slots"]  # in how many of the batches each slot was read


def background(readings: Iterable[Int[Tensor, "..."]], slots: int) -> Background:
    """Counts the slots that batches of old data read.

    Args:
        readings: the slots that each batch read, as in `Reading.slots`, of any shape.
        slots: of the table.
    """
    batches, read_in = 0, torch.zeros(slots, dtype=torch.int64)
    for read in readings:
        batches += 1
        read_in[read.unique().to(read_in.device)] += 1
    return Background(batches, read_in)


def specificity(read: Int[Tensor, "..."], known: Background) -> Float[Tensor, " slots"]:
    """How much more a batch reads each slot than the background does: TF-IDF, Lin et al. 2025, section 3.

    The slot's share in the batch's readings, times log((batches + 1) / (batches that read it + 1)).
    """
    counts = read.flatten().to(known.read_in.device).bincount(minlength=len(known.read_in))
    rarity = ((known.batches + 1) / (known.read_in + 1)).log()
    return counts / max(1, read.numel()) * rarity


class Edit(NamedTuple):
    """What an edit changed: enough to make it again and to take it back, bit for bit."""

    rows: Int[Tensor, " slots"]
    before: Tensor
    after: Tensor

    def apply(self, table: Tensor) -> None:
        """Makes the edit.

        Raises:
            ValueError: the table does not hold what the edit found; nothing is changed.
        """
        _exchange(table, self.rows, self.before, self.after, "before this edit")

    def revert(self, table: Tensor) -> None:
        """Takes the edit back.

        Raises:
            ValueError: the table does not hold what the edit left; nothing is changed.
        """
        _exchange(table, self.rows, self.after, self.before, "after this edit")


@final
class SparseFinetuning:
    """Holds an optimiser to the slots that are specific to what is being learned.

        tuning = SparseFinetuning(memory.values.rows, known, slots=50)
        for keys, targets in new_facts:
            reading = memory.read(keys)
            loss(...).backward()
            tuning.restrict(reading.slots)
            optimizer.step()  # of the table alone: SparseOptimizer
        save_edit("paris.edit", tuning.edit())

    Args:
        table: the parameter whose rows are the slots.
        known: how old data read it.
        slots: how many slots a step may change.
    """

    def __init__(self, table: nn.Parameter, known: Background, slots: int) -> None:
        if len(known.read_in) != len(table):
            raise ValueError(f"known is of {len(known.read_in)} slots, the table has {len(table)}")
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.table, self.known, self.slots = table, known, slots
        self._held = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        self._rows: list[Tensor] = []
        self._before: list[Tensor] = []

    @torch.no_grad()
    def restrict(self, read: Int[Tensor, "..."]) -> Int[Tensor, " chosen"]:
        """Between backward and the optimiser's step: keeps the gradient of the most specific slots alone.

        Args:
            read: the slots that the batch read.

        Returns:
            The slots whose gradient was kept: at most `slots`, in ascending order.
        """
        scores = specificity(read, self.known)
        best = scores.topk(min(self.slots, int((scores > 0).sum()))).indices.sort().values
        chosen = best.to(self.table.device)
        if self.table.grad is not None:
            self.table.grad = _only(self.table.grad, chosen)
        new = chosen[~self._held[chosen]]
        self._held[new] = True
        self._rows.append(new)
        self._before.append(self.table.detach()[new])  # indexing by a tensor copies
        return chosen

    @torch.no_grad()
    def edit(self) -> Edit:
        """What was changed since the beginning."""
        if not self._rows:
            empty = self.table.detach()[:0].clone()
            return Edit(torch.empty(0, dtype=torch.int64), empty, empty.clone())
        rows, order = torch.cat(self._rows).sort()
        before, after = torch.cat(self._before)[order], self.table.detach()[rows]
        changed = ~_same_bits(before, after)
        return Edit(rows[changed], before[changed], after[changed])


def save_edit(path: str | Path, edit: Edit) -> None:
    """Writes an edit to a file in the safetensors format, replaced if there is one."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in edit._asdict().items()}
    data = safetensors.torch.save(tensors, {"mnemos-edit": "1", "checksum": _checksum(tensors)})
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def load_edit(path: str | Path) -> Edit:
    """The edit that `save_edit` wrote, bit for bit.

    Raises:
        ValueError: the file is not an edit, or is damaged.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not an edit, or is damaged: {error}") from None
    if facts.get("mnemos-edit") != "1" or facts.get("checksum") != _checksum(tensors):
        raise ValueError(f"{path} is not an edit, or is damaged")
    return Edit(**tensors)


@torch.no_grad()
def _exchange(table: Tensor, rows: Tensor, expected: Tensor, new: Tensor, when: str) -> None:
    rows = rows.to(table.device)
    fits = table.shape[1:] == expected.shape[1:] and table.dtype == expected.dtype
    if not fits or (len(rows) and int(rows.max()) >= len(table)):
        raise ValueError(
            f"the edit is of {expected.dtype} rows of shape {tuple(expected.shape[1:])}, "
            f"the table {table.dtype} of shape {tuple(table.shape)}"
        )
    differ = int((~_same_bits(table[rows].cpu(), expected.cpu())).sum())
    if differ:
        raise ValueError(f"{differ} of {len(rows)} rows of the table are not as they were {when}")
    table[rows] = new.to(table.device)


def _same_bits(left: Tensor, right: Tensor) -> Tensor:
    """Row by row, bit by bit: -0 is not 0, and NaN is itself."""
    if not left.numel():
        return torch.ones(len(left), dtype=torch.bool, device=left.device)
    pairs = [x.contiguous().flatten(1).view(torch.uint8) for x in (left, right)]
    return (pairs[0] == pairs[1]).all(1)


def _only(gradient: Tensor, chosen: Tensor) -> Tensor:
    """The gradient of the chosen rows; none for the others."""
    if not gradient.is_sparse:
        return torch.zeros_like(gradient).index_copy(0, chosen, gradient[chosen])
    gradient = gradient.coalesce()
    rows, values = gradient.indices(), gradient.values()
    kept = torch.isin(rows[0], chosen)
    return torch.sparse_coo_tensor(
        rows[:, kept], values[kept], gradient.shape, is_coalesced=True, check_invariants=False
    )


def _checksum(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(safetensors.torch.save(dict(sorted(tensors.items())))).hexdigest()
