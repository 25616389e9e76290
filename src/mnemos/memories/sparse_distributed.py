"""Kanerva's sparse distributed memory."""

import math
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import Reading, check_sizes
from mnemos.memories.pairs import PairMemory
from mnemos.ops.counters import copy, recall, store_, store_and_recall, store_and_recall_loop
from mnemos.ops.hamming import pack, within_radius


class SparseDistributedState(NamedTuple):
    """What a `SparseDistributed` remembers."""

    counters: Int[Tensor, "batch slots width"]  # C, int8 or int16


@final
class SparseDistributed(PairMemory):
    """Words of bits, each stored at every one of many random locations that lies near its address.

    Kanerva 1988, "Sparse Distributed Memory". The hard locations are random addresses, fixed once for all. A
    word is added to the counters of the locations within `radius` bits of its address; what is read at an
    address is the majority over the locations within `radius` bits of it. Near addresses share many
    locations, so that an address with errors still reads the word; read again and again (`recall`), a word
    that was stored at itself is found from any address that is not too far away.

    Numbers are taken as bits by their sign: an address has ones where it is above zero, and a word adds its
    sign, so that a zero in it leaves the counters as they are. Readings are -1, 0 (undecided, or nothing
    known) and 1. Nothing is learned by gradients: `ContinuousSparseDistributed` is for that.

    `forward` takes each input as address and word at once; with a `value_size` of its own, the input is the
    address and the word side by side, and the output what was read.

    The state takes a counter for every location and bit of a word; the addresses of the locations are shared
    by all rows, and packed. They are drawn from the seed, the same in every version of torch and numpy.

    Args:
        key_size: bits of an address.
        value_size: bits of a word; None means `key_size`.
        locations: how many hard locations there are. About a tenth as many random words can be stored.
        radius: how many bits an active location may differ in; `activation_share` says what share of the
            locations that is. Kanerva's design: 1,000 bits, 1,000,000 locations and a radius of 451.
        counter_bits: 2 to 16. A counter stops at ±(2^(bits - 1) - 1); it takes a byte, above 8 bits two.
        seed: of the hard locations.
    """

    addresses: Tensor

    def __init__(
        self,
        key_size: int,
        value_size: int | None = None,
        *,
        locations: int,
        radius: int,
        counter_bits: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(key_size, value_size)
        check_sizes(locations=locations)
        if not 0 <= radius <= key_size:
            raise ValueError(f"radius must be from 0 to key_size = {key_size}, not {radius}")
        if not 2 <= counter_bits <= 16:
            raise ValueError(f"counter_bits must be from 2 to 16, not {counter_bits}")
        self.locations, self.radius, self.counter_bits, self.seed = locations, radius, counter_bits, seed
        self.limit = 2 ** (counter_bits - 1) - 1
        self.naive = False
        self.register_buffer("addresses", hard_locations(key_size, locations, seed), persistent=False)

    def initial_state(self, batch_size: int) -> SparseDistributedState:
        """Counters of zero, which answer zero."""
        dtype = torch.int8 if self.counter_bits <= 8 else torch.int16
        shape = (batch_size, self.locations, self.output_size)
        return SparseDistributedState(self._origin.new_zeros(shape, dtype=dtype))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: SparseDistributedState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], SparseDistributedState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        _, keys, values, _ = self.project(torch.where(real.unsqueeze(-1), inputs, 0))
        run = store_and_recall_loop if self.naive else store_and_recall
        sums, counters = run(
            state.counters,
            self.addresses,
            pack(keys > 0),
            values.sign().int(),
            real,
            fresh,
            self.radius,
            self.limit,
        )
        return sums.sign().to(inputs.dtype), SparseDistributedState(counters)

    def write(
        self,
        state: SparseDistributedState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> SparseDistributedState:
        """Stores words at addresses, one after the other.

        The state is copied once in a call, whatever is written: write many words in one, or use `write_`.

        Args:
            strength: how many times each word is stored, rounded to a whole number and at most as often as
                a counter counts. -1 takes out what 1 had stored, exactly if no counter had stopped.
        """
        self.check_given(state, keys=(keys, self.key_size), values=(values, self.output_size))
        copied = SparseDistributedState(copy(state.counters))
        return self.write_(copied, keys, values, strength=strength, mask=mask)

    def write_(
        self,
        state: SparseDistributedState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> SparseDistributedState:
        """As `write`, but into the given state itself, which is returned.

        For who writes a few words at a time and needs no earlier state: the counters of Kanerva's design
        take a gigabyte, of which a word touches a thousandth.
        """
        self.check_given(state, keys=(keys, self.key_size), values=(values, self.output_size))
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        times = real.int() if strength is None else torch.where(real, strength, 0).round()
        times = times.clamp(-self.limit, self.limit).int().unsqueeze(-1)
        changes = torch.where(real.unsqueeze(-1), values, 0).sign().int() * times
        pairs = within_radius(pack(keys > 0).flatten(0, 1), self.addresses, self.radius)
        store_(state.counters, pairs, changes, self.limit)
        return state

    def read(self, state: SparseDistributedState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """The majority of the active locations, bit by bit; they weigh 1 each, in their own order."""
        self.check_given(state, queries=(queries, self.key_size))
        batch, time, _ = queries.shape
        pairs = within_radius(pack(queries > 0).flatten(0, 1), self.addresses, self.radius)
        values = recall(state.counters, pairs, time).sign().to(queries.dtype)
        counts = torch.bincount(pairs[:, 0], minlength=batch * time)
        places = torch.arange(len(pairs), device=pairs.device) - (counts.cumsum(0) - counts)[pairs[:, 0]]
        slots = pairs.new_full((batch * time, int(counts.max()) if len(counts) else 0), -1)
        slots[pairs[:, 0], places] = pairs[:, 1]
        slots = slots.unflatten(0, (batch, time))
        return Reading(values, (slots >= 0).to(queries.dtype), slots)

    def recall(
        self, state: SparseDistributedState, queries: Float[Tensor, "batch time keys"], *, times: int = 20
    ) -> Reading:
        """Reads, then asks with what was read, until that says the same, or `times` reads are done.

        For words that were stored at themselves. An undecided bit keeps what was asked, so that an address
        with nothing around it stays where it is.
        """
        if self.output_size != self.key_size:
            raise ValueError(
                f"value_size must be key_size to ask with what was read: {self.output_size}, {self.key_size}"
            )
        reading = self.read(state, queries)
        for _ in range(times - 1):
            answers = torch.where(reading.values == 0, queries, reading.values)
            if torch.equal(answers > 0, queries > 0):
                break
            queries, reading = answers, self.read(state, answers)
        return reading


def hard_locations(key_size: int, locations: int, seed: int) -> Int[Tensor, "words slots"]:
    """Random addresses, packed and word by word as in `ops.hamming`."""
    words = -(-key_size // 64)
    # numpy promises that the stream of this generator will not change; torch promises nothing of the kind.
    addresses = np.random.PCG64(seed).random_raw(words * locations).reshape(words, locations)
    addresses[-1] >>= np.uint64(64 * words - key_size)
    return torch.from_numpy(addresses.view(np.int64))


def activation_share(key_size: int, radius: int) -> float:
    """The share of random locations within the radius of an address: P(Bin(key_size, 1/2) <= radius)."""
    return sum(math.comb(key_size, distance) for distance in range(radius + 1)) / 2**key_size
