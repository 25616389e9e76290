"""Engram: what a table of n-grams saves a language model, and what is lost without it.

Cheng et al. 2026, scaled down to a small transformer on novels (on CPython's language reference and library
where there is no MNEMOS_DATA). Three networks learn from the same windows of text: one with an Engram after
its first layer, a dense one with as many multiplications per token, and a dense one with as many parameters.
Then the table is knocked out: what the network left to it is what the last few tokens tell, names and the
endings of words, and there its loss rises most.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.engram import Engram, NGramHash
from mnemos.memories.rotary_attention import RotaryAttention
from mnemos.models.transformer import Block
from mnemos.ops.ngram import canonical_ids
from mnemos.progress import Advance, between
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.text import (
    Document,
    Split,
    encode,
    novels,
    python_reference,
    split_documents,
    standard_library,
    train_tokenizer,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, LAYERS, HEADS, CONTEXT, ROWS_AT_ONCE = 128, 2, 4, 128, 16
VOCABULARY, FEED_FORWARD = 2048, 352
HASHING = NGramHash(rows=1 << 13)
ROW_WIDTH = 8
PACKAGES = ("asyncio", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest", "xml")
RATE = 3e-3  # of Adam; the table has five times as much
PASSES = 2  # over the text at most: a table learns by heart what it reads more often
RARE = 0.01
COUNTS = (0, 1, 2, 5, 20, 100)  # how often a trigram was read: where the classes of the figure begin


class Text(NamedTuple):
    """Tokens, document after document."""

    train: Tensor
    test: Tensor
    canonical: Tensor  # what each token of the vocabulary is to the table


class Network(nn.Module):
    """A transformer with tied embeddings, with or without an Engram after its first layer.

    Args:
        canonical: the token that the Engram is told, by token.
    """

    canonical: Tensor

    def __init__(self, feed_forward: int, engram: Engram | None, canonical: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        memories = [RotaryAttention(WIDTH, HEADS, window=CONTEXT) for _ in range(LAYERS)]
        self.blocks = nn.ModuleList(Block(memory, feed_forward) for memory in memories)
        self.norm = nn.RMSNorm(WIDTH)
        self.engram = engram
        self.register_buffer("canonical", canonical)

    def forward(
        self, tokens: Tensor, states: tuple[Any, ...] | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        first, *others, remembered = states or [None] * (LAYERS + 1)
        hidden, _, after = self.blocks[0](self.embedding(tokens), first, None, None)
        left = [after]
        if self.engram is not None:
            added, remembered = self.engram(hidden, remembered, tokens=self.canonical[tokens])
            hidden = hidden + added
        for block, state in zip(list(self.blocks)[1:], others, strict=True):
            hidden, _, after = block(hidden, state, None, None)
            left.append(after)
        return functional.linear(self.norm(hidden), self.embedding.weight), (*left, remembered)

    def tables(self) -> list[nn.Parameter]:
        """What is read by rows, and learns by rows."""
        return [] if self.engram is None else list(self.engram.table.parameters())

    def others(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if not any(p is table for table in self.tables())]

    def multiplications(self) -> int:
        """Per token, forward, attention's scores left out, which are the same for all."""
        return sum(p.numel() for p in self.others() if p.dim() == 2)

    def size(self) -> int:
        return sum(p.numel() for p in self.parameters())


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    text, corpus = _text(seed, full)
    steps = min(2400 if full else 300, PASSES * len(text.train) // (ROWS_AT_ONCE * CONTEXT))
    torch.manual_seed(seed)
    table = nn.Embedding(HASHING.table_rows, ROW_WIDTH, sparse=True)
    nn.init.zeros_(table.weight)
    engram = Engram(WIDTH, HASHING, table)
    network = Network(FEED_FORWARD, engram, text.canonical)
    networks = {
        "engram": network,
        "same_flops": _dense(network, Network.multiplications),
        "same_parameters": _dense(network, Network.size),
    }
    nats = {}
    for number, (name, each) in enumerate(networks.items()):
        _train(each, text.train, steps, seed, between(advance, 0.3 * number, 0.3 * number + 0.3))
        nats[name] = _nats(each, text.test)
    perplexities = {name: math.exp(costs.double().mean().item()) for name, costs in nats.items()}
    advance(0.9, "without the table")
    exact = _exactness(network, engram, text.test)
    nn.init.zeros_(table.weight)
    rise = _nats(network, text.test) - nats["engram"]
    return {
        "corpus": corpus,
        "tokens_read": steps * ROWS_AT_ONCE * CONTEXT,
        "parameters": {name: each.size() for name, each in networks.items()},
        "multiplications": {name: each.multiplications() for name, each in networks.items()},
        "vocabulary_kept": (int(text.canonical.max()) + 1) / len(text.canonical),
        "perplexity": perplexities["engram"],
        "perplexity_same_flops": perplexities["same_flops"],
        "perplexity_same_parameters": perplexities["same_parameters"],
        "ratio_to_same_flops": perplexities["engram"] / perplexities["same_flops"],
        "ratio_to_same_parameters": perplexities["engram"] / perplexities["same_parameters"],
        **_knocked_out(rise, text),
        **exact,
    }


def _text(seed: int, full: bool) -> tuple[Text, str]:
    split, corpus = _documents(seed)
    size = 8_000_000 if full else 3_000_000  # characters, the same share of every book
    train = _shortened(split.train, size)
    tokenizer = train_tokenizer(train, VOCABULARY)
    streams = [
        torch.cat([encode(tokenizer, document.text).ids for document in documents])
        for documents in (train, _shortened(split.test, size // 12))
    ]
    texts = [tokenizer.decode([token]) for token in range(tokenizer.get_vocab_size())]
    return Text(streams[0], streams[1], canonical_ids(texts)), corpus


def _documents(seed: int) -> tuple[Split, str]:
    if os.environ.get("MNEMOS_DATA"):
        return novels(), "English novels"
    documents = [*python_reference(), *(d for package in PACKAGES for d in standard_library(package))]
    return split_documents(documents, seed=seed), "CPython's language reference and the source of its library"


def _shortened(documents: list[Document], size: int) -> list[Document]:
    share = min(1.0, size / sum(len(document.text) for document in documents))
    return [Document(name, text[: math.ceil(share * len(text))]) for name, text in documents]


def _dense(network: Network, amount: Callable[[Network], int]) -> Network:
    """A network without a table, its feed-forward layers wide enough to have the same amount."""
    smallest = Network(FEED_FORWARD, None, network.canonical)
    wider = math.ceil((amount(network) - amount(smallest)) / (3 * WIDTH * LAYERS))
    return Network(FEED_FORWARD + wider, None, network.canonical)


def _train(network: Network, stream: Tensor, steps: int, seed: int, advance: Advance) -> None:
    """Adam, the table by rows; the same windows in the same order for every network."""
    generator = torch.Generator().manual_seed(seed)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(network.others(), lr=RATE, betas=(0.9, 0.98))]
    if network.tables():
        optimizers.append(SparseOptimizer(network.tables(), adam, lr=5 * RATE))
    rate = partial(_rate, steps=steps)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    for step in range(steps):
        starts = torch.randint(len(stream) - CONTEXT - 1, (ROWS_AT_ONCE,), generator=generator)
        windows = stream[starts.unsqueeze(1) + torch.arange(CONTEXT + 1)]
        loss = _cost(network, windows).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.others(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        if step % 10 == 0:
            advance(step / steps, f"step {step} of {steps}, loss {loss.item():.3f}")


def _rate(step: int, steps: int) -> float:
    return min((step + 1) / max(1, steps // 20), 1 - step / steps)


def _cost(network: Network, windows: Tensor) -> Tensor:
    logits, _ = network(windows[:, :-1])
    return functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")


@torch.no_grad()
def _nats(network: Network, stream: Tensor) -> Tensor:
    """The cost of every token but the first of each window, window after window."""
    windows = stream.unfold(0, CONTEXT + 1, CONTEXT)
    return torch.cat([_cost(network, some) for some in windows.split(64)]).flatten()


def _knocked_out(rise: Tensor, text: Text) -> dict[str, Any]:
    """How much the loss rises without the table, where the last two tokens tell the next, and elsewhere.

    A fact is a rare token (under one in a hundred of the text read) that followed the two tokens before it in
    most of the places where they stood, and twice at least: names, and the endings of words.
    """
    read, asked = text.canonical[text.train], text.canonical[text.test]
    target = asked[2:]
    seen = _times(_joined(read, 3), _joined(asked, 3))
    before = _times(_joined(read, 2), _joined(asked, 2)[:-1])
    common = _times(read, target) / len(read) >= RARE
    fact = (seen >= 2) & (2 * seen >= before) & ~common
    # The first cost is that of the stream's second token, and the last window's end is left out of it.
    seen, fact, rise = seen[: len(rise) - 1], fact[: len(rise) - 1], rise[1:]
    bins = torch.bucketize(seen, torch.tensor(COUNTS), right=True)
    return {
        "rise_facts": rise[fact].mean().item(),
        "rise_others": rise[~fact].mean().item(),
        "rise_ratio": (rise[fact].mean() / rise[~fact].mean()).item(),
        "share_facts": fact.double().mean().item(),
        "rise_by_count": {str(start): rise[bins == n + 1].mean().item() for n, start in enumerate(COUNTS)},
    }


def _joined(tokens: Tensor, order: int) -> Tensor:
    """A number for every n-gram."""
    places = VOCABULARY ** torch.arange(order - 1, -1, -1)
    return (tokens.unfold(0, order, 1) * places).sum(1)


def _times(read: Tensor, asked: Tensor) -> Tensor:
    """How often each of `asked` is in `read`."""
    known, times = read.unique(return_counts=True)
    place = torch.searchsorted(known, asked).clamp_max(len(known) - 1)
    return torch.where(known[place] == asked, times[place], 0)


@torch.no_grad()
def _exactness(network: Network, engram: Engram, stream: Tensor) -> dict[str, float]:
    tokens = stream[: 2 * CONTEXT].view(2, CONTEXT)
    whole, _ = network(tokens)
    pieces, states = [], None
    for piece in tokens.split([1, 5, 2, 60, CONTEXT - 68], dim=1):
        logits, states = network(piece, states)
        pieces.append(logits)
    later = tokens.clone()
    later[:, CONTEXT // 2 :] = (later[:, CONTEXT // 2 :] + 1) % VOCABULARY
    leaked = (network(later)[0] - whole)[:, : CONTEXT // 2].abs().max().item()
    again = Engram(WIDTH, HASHING, nn.Embedding(HASHING.table_rows, 1))
    moved = (again.rows(tokens) != engram.rows(tokens)).double().mean().item()
    return {
        "streaming_difference": (torch.cat(pieces, dim=1) - whole).abs().max().item(),
        "future_leakage": leaked,
        "addresses_moved": moved,
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    from mnemos.report.drawing import INK, WITH, WITHOUT, drawing, label

    names = {
        "perplexity": ("with Engram", WITH),
        "perplexity_same_flops": ("dense, as many\nmultiplications", WITHOUT),
        "perplexity_same_parameters": ("dense, as many\nparameters", WITHOUT),
    }
    with drawing(height=2.5, columns=2) as (figure, [cost, lost]):
        for row, (name, (said, colour)) in enumerate(names.items()):
            cost.barh([said], [measured[name]], height=0.6, color=colour)
            label(cost, measured[name], row, f"{measured[name]:.0f}", INK)
        cost.invert_yaxis()
        cost.set_xlim(0, 1.15 * max(measured[name] for name in names))
        cost.set_title("perplexity on unseen text")
        cost.grid(axis="y", visible=False)
        starts = [int(start) for start in measured["rise_by_count"]]
        ends = [*(start - 1 for start in starts[1:]), None]
        spans = [
            f"{a}+" if b is None else f"{a}" if a == b else f"{a}-{b}"
            for a, b in zip(starts, ends, strict=True)
        ]
        lost.bar(spans, list(measured["rise_by_count"].values()), width=0.7, color=WITH)
        lost.set_ylim(0, 1.2 * max(measured["rise_facts"], *measured["rise_by_count"].values()))
        lost.set_title("lost without the table, nats per token")
        lost.set_xlabel("times that the trigram was in the text read")
        lost.grid(axis="x", visible=False)
        for name, said in (("rise_facts", "facts"), ("rise_others", "all others")):
            lost.axhline(measured[name], color=INK, linewidth=1, linestyle=(0, (2, 3)))
            lost.annotate(
                f"{said} {measured[name]:.2f}", (0, measured[name]), (-12, 4), textcoords="offset points"
            )
    return figure


STUDY = Study(
    name="engram",
    title="A table of n-grams beside a transformer, and its knock-out (Cheng et al. 2026, Engram)",
    measure=measure,
    thresholds={
        "ratio_to_same_flops": Threshold("<=", 0.97),
        "ratio_to_same_parameters": Threshold("<=", 0.97),
        "rise_ratio": Threshold(">=", 3.0),
        "streaming_difference": Threshold("<=", 1e-4),
        "future_leakage": Threshold("==", 0.0),
        "addresses_moved": Threshold("==", 0.0),
    },
    paper=[
        Figure("validation loss of 27B parameters, mixture of experts", 1.634, "Cheng et al. 2026"),
        Figure("validation loss of 27B parameters, Engram, same training", 1.622, "Cheng et al. 2026"),
        Figure("share of factual tasks kept without the table, %", "29 to 44", "Cheng et al. 2026"),
        Figure("share of reading comprehension kept without the table, %", "81 to 93", "Cheng et al. 2026"),
        Figure("vocabulary saved by canonical ids, %", 23, "Cheng et al. 2026"),
    ],
    draw=draw,
)
