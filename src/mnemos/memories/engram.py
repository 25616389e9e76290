"""Engram: a table of what usually follows, found by the last few tokens."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Memory, check_sizes
from mnemos.memories.mapped_table import MappedTable
from mnemos.ops.ngram import ABSENT, ngram_rows, primes_from
from mnemos.ops.windows import windows
from mnemos.tree import reset_rows, where_rows


@dataclass(frozen=True)
class NGramHash:
    """Which rows of a table an n-gram finds. The same values find the same rows, in every process.

    Args:
        rows: of each head's share of the table, at least; each share takes a prime of its own from there on.
        orders: lengths of the n-grams, ascending: 2 for bigrams, 3 for trigrams.
        heads: shares of each order; an n-gram is confused with another only where it meets it in all of them.
        seed: so that another layer meets other collisions.
    """

    rows: int
    orders: tuple[int, ...] = (2, 3)
    heads: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(rows=self.rows, heads=self.heads)
        if not self.orders or self.orders[0] < 1 or list(self.orders) != sorted(set(self.orders)):
            raise ValueError(f"orders must be ascending numbers from 1, not {self.orders}")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows of every share: the heads of the first order, then those of the next."""
        return tuple(primes_from(self.rows, len(self.orders) * self.heads))

    @property
    def table_rows(self) -> int:
        """Rows of the whole table."""
        return sum(self.sizes)

    @property
    def multipliers(self) -> list[int]:
        """An odd number for each place of an n-gram, by a hash that no library's generator can change."""
        names = (f"{self.seed}:{place}" for place in range(self.orders[-1]))
        digests = (hashlib.sha256(name.encode()).digest() for name in names)
        return [int.from_bytes(digest[:4], "little") >> 1 | 1 for digest in digests]


class EngramState(NamedTuple):
    """What the next steps need of the last ones; the oldest first, nothing where a document has begun."""

    tokens: Int[Tensor, "batch history"]  # the largest order less one of them, ABSENT where there is none
    values: Float[Tensor, "batch tail width"]  # normalised, for the convolution


@final
class Engram(Memory):
    """Looks up what the last tokens stand for, and lets the hidden state decide how much of it counts.

    Cheng et al. 2026, "Conditional Memory via Scalable Lookup: A New Axis of Sparsity for Large Language
    Models". The last two and the last three tokens are hashed to rows of a table, 8 for each; side
    by side they are the embedding e_t of the n-gram. With h_t the input,

        k_t = W_K e_t,  v_t = W_V e_t,  α_t = σ(RMSNorm(h_t) · RMSNorm(k_t) / √d),  u_t = α_t v_t
        y_t = u_t + SiLU(Conv(RMSNorm(u))_t)

    with a causal convolution in each channel whose taps lie as far apart as the longest n-gram is long, and
    which begins as zero. Adding y_t to h_t is left to the network around. The published code's gate has a
    signed square root in it, which the paper has not; nor has this.

    What is remembered are parameters: the table. It is trained as a whole in an `nn.Embedding`, row by row
    with `sparse=True` and `mnemos.sparse_optimizer.SparseOptimizer`, and read from its file by a
    `MappedTable`. Rows had best begin at zero: an n-gram that was never trained then adds nothing. The paper
    trains the table with five times the learning rate of the rest, and without weight decay. Its use is not
    counted in the state, which would have to be as large: `rows` tells it from the text alone.

    An n-gram is one of tokens, which hidden states do not tell: `forward` takes them beside the inputs, as
    `tokens`. Ids that say the same had best be made one before (`ops.ngram.canonical_ids`). Where there are
    no tokens at all, `codes` makes them of the inputs (`ops.ngram.sign_codes`). Without either there is an
    error: hashing something else unasked would be a memory of something else.

    Args:
        input_size: d, width of inputs and outputs.
        hashing: which n-grams find which rows.
        table: of `hashing.table_rows` rows: an `nn.Embedding` or a `MappedTable`.
        kernel_size: taps of the convolution.
        codes: makes a token of every input, where `forward` is given none; None for an error.
    """

    _sizes: Tensor
    _multipliers: Tensor

    def __init__(
        self,
        input_size: int,
        hashing: NGramHash,
        table: nn.Embedding | MappedTable,
        kernel_size: int = 4,
        codes: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, kernel_size=kernel_size)
        if table.num_embeddings != hashing.table_rows:
            raise ValueError(f"table must have {hashing.table_rows} rows, not {table.num_embeddings}")
        self.input_size = self.output_size = input_size
        self.hashing, self.table, self.kernel_size, self.codes = hashing, table, kernel_size, codes
        self.naive = False
        self.history = hashing.orders[-1] - 1
        self.dilation = hashing.orders[-1]
        width = len(hashing.sizes) * table.embedding_dim
        self.key = nn.Linear(width, input_size, bias=False)  # W_K
        self.value = nn.Linear(width, input_size, bias=False)  # W_V
        self.input_norm = nn.RMSNorm(input_size, eps=1e-6)
        self.key_norm = nn.RMSNorm(input_size, eps=1e-6)
        self.value_norm = nn.RMSNorm(input_size, eps=1e-6)
        self.taps = nn.Parameter(torch.zeros(kernel_size, input_size))  # of the convolution, the newest first
        sizes = torch.tensor(hashing.sizes).view(len(hashing.orders), hashing.heads)
        self.register_buffer("_sizes", sizes, persistent=False)
        self.register_buffer("_multipliers", torch.tensor(hashing.multipliers), persistent=False)

    def initial_state(self, batch_size: int) -> EngramState:
        """Nothing was said."""
        new, tail = self._origin.new_zeros, (self.kernel_size - 1) * self.dilation
        tokens = new(batch_size, self.history, dtype=torch.int64) + ABSENT
        return EngramState(tokens, new(batch_size, tail, self.input_size))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: EngramState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
        tokens: Int[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], EngramState]:
        """Looks up the n-gram that ends at each step.

        Args:
            inputs: h, what the gate judges by.
            tokens: ids from 0 to 2^31, the step's own included; a negative one is as none. Needed unless
                the memory has `codes`.
        """
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(2), inputs, 0)  # padding may hold anything, NaN included
        if tokens is None:
            if self.codes is None:
                raise ValueError("tokens must be given: this Engram has no `codes` to make them of inputs")
            tokens = self.codes(inputs)
        if tokens.shape != inputs.shape[:2]:
            raise ValueError(f"tokens must have shape {tuple(inputs.shape[:2])}, not {tuple(tokens.shape)}")
        tokens = tokens.long().clamp_min(ABSENT)
        if self.naive:
            return self._loop(inputs, tokens, state, real, fresh)
        moved = None if mask is None else real
        document = fresh.cumsum(1)
        suffixes, said = windows(state.tokens, tokens, ABSENT, document, moved, self.history + 1, 1)
        gated = torch.where(real.unsqueeze(2), self._gated(inputs, suffixes), 0)
        normed = self.value_norm(gated).to(state.values.dtype)
        seen, values = windows(state.values, normed, 0, document, moved, self.kernel_size, self.dilation)
        outputs = gated + functional.silu((seen * self.taps.mT).sum(3))
        return torch.where(real.unsqueeze(2), outputs, 0), EngramState(said, values)

    def rows(self, tokens: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time found"]:
        """The rows of the table that a text reads from its beginning: to fetch them early, or to count."""
        said = self.initial_state(len(tokens)).tokens
        suffixes, _ = windows(said, tokens, ABSENT, torch.zeros_like(tokens), None, self.history + 1, 1)
        return self._find(suffixes)

    def _find(self, suffixes: Int[Tensor, "batch time history"]) -> Int[Tensor, "batch time found"]:
        return ngram_rows(suffixes, self.hashing.orders, self._multipliers, self._sizes)

    def _gated(
        self, inputs: Float[Tensor, "batch time input"], suffixes: Int[Tensor, "batch time history"]
    ) -> Float[Tensor, "batch time input"]:
        """u_t = α_t v_t."""
        dtype = self._origin.dtype  # also where autocast would have another
        embedded = self.table(self._find(suffixes)).flatten(2).to(dtype)
        match = self.input_norm(inputs.to(dtype)) * self.key_norm(self.key(embedded).to(dtype))
        gate = (match.sum(2, keepdim=True) / math.sqrt(self.input_size)).sigmoid()
        return gate * self.value(embedded).to(dtype)

    def _loop(
        self, inputs: Tensor, tokens: Tensor, state: EngramState, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, EngramState]:
        """One step after the other: the specification of what `forward` does at once."""
        nothing, outputs = self.initial_state(1), []
        steps = zip(*(x.unbind(1) for x in (inputs, tokens, real, fresh)), strict=True)
        for step, token, is_real, starts in steps:
            state = reset_rows(state, starts, nothing)
            said = torch.cat([state.tokens, token.unsqueeze(1)], dim=1)
            gated = self._gated(step.unsqueeze(1), said.flip(1).unsqueeze(1))
            values = torch.cat([state.values, self.value_norm(gated).to(state.values.dtype)], dim=1)
            mixed = (values.flip(1)[:, :: self.dilation] * self.taps).sum(1)
            outputs.append((gated.squeeze(1) + functional.silu(mixed)) * is_real.unsqueeze(1))
            state = where_rows(is_real, EngramState(said[:, 1:], values[:, 1:]), state)
        return torch.stack(outputs, dim=1) if outputs else inputs, state
