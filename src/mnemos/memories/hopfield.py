"""Patterns kept in one matrix of couplings: the network of Hopfield 1982."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Reading, check_sizes
from mnemos.ops.hopfield import Dynamics, Rule, asynchronous, energy, hebb, signs


class HopfieldState(NamedTuple):
    """What a `Hopfield` network remembers."""

    weights: Float[Tensor, "batch keys keys"]  # W, the couplings; never below float32


@final
class Hopfield(AddressableMemory):
    """Finds a whole pattern of +1 and -1 again from a part of it. Hopfield 1982.

    A pattern is its own key: `write` stores the signs of the values, and `read` starts at the signs of the
    query and lets the units settle. There are no parameters. Nothing here has a gradient but the couplings,
    which are linear in `strength`.

    Rows are independent networks. What is stored is a matrix, whatever the number of patterns: with the
    default rule 0.138 patterns per unit can be found again, and one more too many spoils all of them. A small
    `decay` trades that collapse for forgetting (Nadal et al. 1986): the last patterns are kept.

    An empty memory has no field anywhere, so that the query stays as it is.

    Args:
        input_size: units, which is the width of a pattern.
        rule: how a pattern changes the couplings, of `mnemos.ops.hopfield`: `hebb`, `storkey`,
            `pseudo_inverse`, or one's own (couplings, pattern) -> change.
        dynamics: how the units settle: `asynchronous`, whose energy never rises, or `synchronous`. Another
            order of the units is `functools.partial(asynchronous, order=...)`.
        sweeps: updates of every unit in a read, fewer once nothing changes. Compiled code does them all, and
            of `asynchronous` it has every unit's by itself: compile that for small networks only.
        decay: the share of the couplings that a write of strength 1 lets go before it adds its own.
    """

    def __init__(
        self,
        input_size: int,
        rule: Rule = hebb,
        dynamics: Dynamics = asynchronous,
        *,
        sweeps: int = 20,
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, sweeps=sweeps)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, not {decay}")
        self.input_size = self.output_size = input_size
        self.rule, self.dynamics, self.sweeps, self.decay = rule, dynamics, sweeps, decay

    def initial_state(self, batch_size: int) -> HopfieldState:
        """No couplings."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        return HopfieldState(
            self._origin.new_zeros(batch_size, self.input_size, self.input_size, dtype=dtype)
        )

    def write(
        self,
        state: HopfieldState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> HopfieldState:
        """Stores the signs of the values, one after the other.

        Args:
            keys: of the values' shape, and not looked at: any part of a pattern will find it.
            strength: how much of the rule's change is made, and of the decay.
        """
        self.check_given(state, values=(values, self.input_size))
        strength = values.new_ones(values.shape[:2]) if strength is None else strength
        strength = strength if mask is None else torch.where(mask, strength, 0)
        weights = state.weights
        with torch.autocast(values.device.type, enabled=False):
            patterns, amounts = signs(values).to(weights), strength.to(weights)[..., None, None]
            for pattern, amount in zip(patterns.unbind(1), amounts.unbind(1), strict=True):
                change = self.rule(weights, pattern)
                change = change - self.decay * weights if self.decay else change
                weights = torch.addcmul(weights, amount, change)
        return HopfieldState(weights)

    def read(self, state: HopfieldState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """What the units settle to from the signs of the query.

        The slots of a matrix are the units: that a unit has settled to is the weight of its column.
        """
        self.check_given(state, queries=(queries, self.input_size))
        with torch.autocast(queries.device.type, enabled=False):
            settled = self.dynamics(state.weights.detach(), signs(queries).to(state.weights), self.sweeps)
        slots = torch.arange(self.input_size, device=queries.device).expand(queries.shape)
        return Reading(settled.to(queries), settled, slots)

    def energy(
        self, state: HopfieldState, patterns: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time"]:
        """-½ sᵀ W s of the signs of the patterns: low for what is remembered."""
        self.check_given(state, patterns=(patterns, self.input_size))
        with torch.autocast(patterns.device.type, enabled=False):
            return energy(state.weights, signs(patterns).to(state.weights))

    def unlearn(
        self, state: HopfieldState, queries: Float[Tensor, "batch time keys"], strength: float = 0.01
    ) -> HopfieldState:
        """Lets go of what the queries settle to: Hopfield, Feinstein & Palmer 1983.

        From random queries that is more often a mixture of patterns than a pattern, so that a little of it
        makes the patterns easier to find. Queries are taken one after the other.

        Args:
            strength: how much of Hebb's rule is taken back, whatever rule wrote.
        """
        for query in queries.split(1, 1):
            settled = self.read(state, query).weights.squeeze(1)
            state = HopfieldState(state.weights - strength * hebb(state.weights, settled))
        return state
