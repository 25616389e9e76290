"""Attention over more than the window: the nearest of past keys and values, kept in a bounded bank."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.base import check_sizes
from mnemos.models.hugging_face import bank
from mnemos.models.hugging_face.bank import Bank, Found, Staged
from mnemos.models.hugging_face.part import Angles, Hidden, Part, Step

READING = "memory_reading"  # where an attention module finds what it is to read, while its layer runs


@dataclass(frozen=True)
class AttentionMemory:
    """Memorizing attention for a layer that has attention (Wu et al. 2022, "Memorizing Transformers").

    Each head also attends to its `top_k` best records among the keys and values of the past, and mixes:
    (1 - g) · local + g · memory, with one learned gate g = sigmoid(b) per head (their equation 4). Keys are
    kept without their positions, where the paper keeps them as they are: a record has no distance, so it can
    be read from anywhere. What is written carries no gradient.

    Args:
        top_k: records that each head reads for each query.
        capacity: records of the bank; the oldest goes first. Each is a key and a value of every head.
        shared: one bank for all rows of a batch, or one for each row, as a stream of documents needs.
        gate: g before training, between 0 and 1.
    """

    top_k: int = 32
    capacity: int = 8192
    shared: bool = True
    gate: float = 0.5

    def __post_init__(self) -> None:
        check_sizes(top_k=self.top_k, capacity=self.capacity)
        if not 0 < self.gate < 1:
            raise ValueError(f"gate must lie between 0 and 1, not {self.gate}")


class Reading(NamedTuple):
    """What an attention function is told while its layer runs."""

    part: "AttentionPart"
    step: Step
    angles: Angles | None


@final
class AttentionPart(Part):
    """An `AttentionMemory` in a layer: its gates, and what was seen of its reads.

    Args:
        query_heads: of the layer's attention; each has a gate, and a temperature on top of the layer's own.
    """

    def __init__(self, layer: int, memory: AttentionMemory, query_heads: int) -> None:
        super().__init__(layer)
        self.memory, self.query_heads = memory, query_heads
        self.gate = nn.Parameter(torch.full((query_heads,), memory.gate).logit())  # b
        self.temperature = nn.Parameter(torch.zeros(query_heads))  # log of what the scores are multiplied by
        self.forget_reads()

    def settings(self) -> dict[str, Any]:
        return {"attention": asdict(self.memory)}

    @property
    def carries_state(self) -> bool:
        return False

    def before(self, step: Step, attention: nn.Module, angles: Angles | None) -> None:
        attention.__dict__[READING] = Reading(self, step, angles)

    def after(self, step: Step, hidden: Hidden, state: Any) -> tuple[Hidden, Any]:
        return hidden, state

    def mix(
        self,
        local: Float[Tensor, "batch time heads width"],
        queries: Float[Tensor, "batch heads time keys"],
        keys: Float[Tensor, "batch key_heads past keys"],
        values: Float[Tensor, "batch key_heads past width"],
        scaling: float,
        reading: Reading,
    ) -> Float[Tensor, "batch time heads width"]:
        """What attention gives, with what the memory gives; and keeps what a commit is to write.

        Args:
            local: what attention gave without memory; returned as it is where nothing was ever written.
            queries, keys, values: what attention was given, rotated by the positions; the keys and values of
                this pass are the last ones.
            scaling: what the layer multiplies its scores by.
        """
        step, time = reading.step, queries.shape[2]
        if step.memorizing:
            new = unrotated(keys[:, :, -time:], reading.angles)
            real = local.new_ones(local.shape[:2], dtype=torch.bool) if step.real is None else step.real
            step.staged[self.layer] = Staged(
                new.detach().transpose(1, 2), values[:, :, -time:].detach().transpose(1, 2), real
            )
        held = step.banks.get(self.layer)
        if held is None or not held.written.shape[1]:
            return local
        asked = unrotated(queries, reading.angles).transpose(1, 2)
        found = bank.read(held, asked, scaling * self.temperature.exp(), self.memory.top_k)
        gate = self.gate.sigmoid().unsqueeze(-1).to(local.dtype)
        mixed = (1 - gate) * local + gate * found.values.to(local.dtype)
        self._count(held, found, step)
        return torch.where(found.any.view(-1, 1, 1, 1), mixed, local)

    def forget_reads(self) -> None:
        self.reads: Tensor | float = 0.0
        self.hits: Tensor | float = 0.0
        self.age: Tensor | float = 0.0
        self.used: tuple[Tensor, Tensor] | None = None  # when each slot was written, and whether it was read

    @torch.no_grad()
    def _count(self, held: Bank, found: Found, step: Step) -> None:
        shape = found.weights.shape[:3]
        real = found.any.view(-1, 1) if step.real is None else found.any.view(-1, 1) & step.real
        counts = real.unsqueeze(-1).expand(shape)
        self.reads = self.reads + counts.sum()
        self.hits = self.hits + ((found.weights.amax(-1) > 0.5) & counts).sum()
        seen = bank.for_rows(held, shape[0]).written.expand(shape[0], -1)
        written = seen.gather(1, found.slots.flatten(1)).view_as(found.slots)
        ages = (seen.amax(1).view(-1, 1, 1, 1) - written).to(found.weights.dtype)
        self.age = self.age + ((ages * found.weights).sum(-1) * counts).sum()
        if self.used is None or self.used[0] is not held.written:
            self.used = held.written, torch.zeros_like(held.written, dtype=torch.bool)
        read = torch.zeros(shape[0], held.written.shape[1], device=seen.device, dtype=torch.int8)
        read.scatter_add_(
            1, found.slots.flatten(1), (counts.unsqueeze(-1) & (found.weights > 0)).flatten(1).to(read)
        )
        self.used[1].logical_or_((read > 0).unflatten(0, (len(held.written), -1)).any(1))

    def report(self) -> dict[str, float]:
        """Figures of all reads since `forget_reads`.

        - gate: g, the mean over heads; how much of the output the memory can decide.
        - reads: queries that were asked while the bank held something, one for each head.
        - hit_rate: the share of them that settled on one record: more than half of the weight on it.
        - age: how many records had been written since those that answered, weighted as they counted.
        - slots_held, slots_read: records in the bank, and how many of them any query has read since the bank
          last changed.
        """
        reads, hits, age = float(self.reads), float(self.hits), float(self.age)
        used = self.used
        return {
            "gate": float(self.gate.detach().sigmoid().mean()),
            "reads": reads,
            "hit_rate": hits / reads if reads else 0.0,
            "age": age / reads if reads else 0.0,
            "slots_held": float((used[0] >= 0).sum()) if used else 0.0,
            "slots_read": float(used[1].sum()) if used else 0.0,
        }


def rotate_half(x: Tensor) -> Tensor:
    """The other half of each pair: dimension i is paired with i + width / 2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def unrotated(
    x: Float[Tensor, "batch heads time width"], angles: Angles | None
) -> Float[Tensor, "batch heads time width"]:
    """Queries or keys as they were before their positions turned them.

    A rotation by (cos, sin), each scaled by a, is undone by the transposed rotation over a² = cos² + sin²:
    this also takes off the scale of long-context variants. Beyond the cosines' width nothing was turned.
    """
    if angles is None:
        return x
    full = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (angle.to(full).unsqueeze(1) for angle in angles)
    turned, rest = x[..., : cos.shape[-1]].to(full), x[..., cos.shape[-1] :]
    back = (turned * cos - rotate_half(turned) * sin) / (cos.square() + sin.square())
    return torch.cat([back.to(x.dtype), rest], dim=-1)
