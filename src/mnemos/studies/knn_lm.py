"""The nearest-neighbour language model: a memory of what was read lowers perplexity without training.

Khandelwal et al. 2020, scaled down to two texts that ship with Python. A small transformer is trained on
domain A, the language reference. Then two memories are read, with no gradient step: one of the very text
that the model was trained on, asked about unseen text of A; and one of domain B, the source of a package
of the standard library, asked about unseen text of B and of A. Documents are never divided between the
memory and the test.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.hybrid import hybrid
from mnemos.models.mixture import (
    Evidence,
    Mixture,
    concatenate_evidence,
    fit_mixture,
    mixed_nats,
    mixture_weight,
    perplexity,
)
from mnemos.models.nearest_neighbour import memorize, predict, retrieve
from mnemos.progress import Advance, between
from mnemos.stores import open as open_store
from mnemos.stores.base import Store
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.text import (
    Document,
    Split,
    bits_per_byte,
    encode,
    novels,
    python_reference,
    repeated_lines,
    split_documents,
    standard_library,
    train_tokenizer,
)

SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)  # of B that was read when the curve is taken
NEIGHBOURS = 64


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    a, b = _domains(seed, full)
    with tempfile.TemporaryDirectory() as folder:
        model = _train(a.train, Path(folder) / "model", seed, full, between(advance, 0.0, 0.45))
        with _store(Path(folder) / "a", model) as store:
            _read(model, store, a.train, between(advance, 0.45, 0.5))
            measured = _in_domain(model, store, a, between(advance, 0.5, 0.7))
        with _store(Path(folder) / "b", model) as store:
            curve = list(_growth(model, store, b, between(advance, 0.7, 0.85)))
            measured |= _adaptation(model, store, a, b, curve, between(advance, 0.85, 1.0))
            measured |= _exactness(model, store, b.test)
    return measured | _repetition(a, b)


def _domains(seed: int, full: bool) -> tuple[Split, Split]:
    """A and B; in full the novels are A if they are there."""
    a = split_documents(python_reference(), seed=seed)
    if full and os.environ.get("MNEMOS_DATA"):
        books = novels()
        a = Split(books.train[:12], books.valid[:1], books.test[:1])
    return a, split_documents(standard_library("email"), seed=seed)


def _train(
    documents: Sequence[Document], folder: Path, seed: int, full: bool, advance: Advance
) -> LanguageModel:
    from mnemos.training import TrainingConfig, train_language_model

    tokenizer = train_tokenizer(documents, 2048 if full else 1024)
    torch.manual_seed(seed)
    width, layers = (256, 4) if full else (128, 2)
    network = hybrid(tokenizer.get_vocab_size() + 1, ["attention"] * layers, width=width)
    config = TrainingConfig(steps=6000 if full else 600, seed=seed)
    return train_language_model(network, tokenizer, documents, folder, config, advance=advance)


def _store(path: Path, model: LanguageModel) -> Store:
    return open_store(path, metric="euclidean", fingerprint=model.fingerprint)


def _read(model: LanguageModel, store: Store, documents: Sequence[Document], advance: Advance) -> None:
    for done, document in enumerate(documents):
        advance(done / len(documents), f"reading {document.name}")
        for _ in memorize(model, store, document):
            pass


def _ask_each(
    model: LanguageModel, store: Store | None, documents: Sequence[Document], approximate: bool = False
) -> list[Evidence]:
    """What model and memory say of each document."""
    return [
        retrieve(model, store, document.text, k=NEIGHBOURS, approximate=approximate) for document in documents
    ]


def _ask(
    model: LanguageModel, store: Store | None, documents: Sequence[Document], approximate: bool = False
) -> Evidence:
    """What they say of all documents, one after the other."""
    return concatenate_evidence(_ask_each(model, store, documents, approximate))


def _repetition(a: Split, b: Split) -> dict[str, Any]:
    """How many lines of the tests stand in what was learned or read."""
    lines = {name: repeated_lines(split.train, split.test) for name, split in (("a", a), ("b", b))}
    return {f"repeated_lines_{name}": list(counted) for name, counted in lines.items()}


def _in_domain(model: LanguageModel, store: Store, a: Split, advance: Advance) -> dict[str, Any]:
    """The paper's first result: a memory of the text that the model was trained on still helps it."""
    advance(0.0, "asking the memory of A")
    each, test = _ask_each(model, store, a.valid), _ask(model, store, a.test)
    mixture, valid = fit_mixture([each]), concatenate_evidence(each)
    advance(0.5, "asking its index")
    store.build_index()
    approximate = _ask(model, store, a.test, approximate=True)
    with_memory, by_index = (_with_memory(evidence, mixture) for evidence in (test, approximate))
    return {
        "a_records": store.count(),
        "a_without": perplexity(test.nats),
        "a_with_memory_of_a": with_memory,
        "a_reduction": 1 - with_memory / perplexity(test.nats),
        "a_valid_reduction": 1 - _with_memory(valid, mixture) / perplexity(valid.nats),
        "a_weight": float(mixture_weight(mixture, valid.distances).mean()),
        "a_with_index": by_index,
        "index_difference": abs(by_index / with_memory - 1),
    }


def _growth(
    model: LanguageModel, store: Store, b: Split, advance: Advance
) -> Iterator[tuple[float, Evidence]]:
    """Reads B, and asks about its test whenever another share of it has been read."""
    total = sum(len(encode(model.tokenizer, document.text).ids) for document in b.train)
    due = list(SHARES)
    for document in b.train:
        advance(store.count() / total, f"reading {document.name}")
        for _ in memorize(model, store, document):
            share = store.count() / total
            if share >= due[0]:
                due = [later for later in due if later > share] or [math.inf]
                yield share, _ask(model, store, b.test)


def _adaptation(
    model: LanguageModel,
    store: Store,
    a: Split,
    b: Split,
    curve: list[tuple[float, Evidence]],
    advance: Advance,
) -> dict[str, Any]:
    """The paper's second result: a memory of another domain, for a model that was never trained on it."""
    advance(0.0, "asking the memory of B")
    mixture = fit_mixture([_ask_each(model, store, part) for part in (a.valid, b.valid)])
    on_a, on_b = _ask(model, store, a.test), curve[-1][1]
    points = [(share, _with_memory(evidence, mixture)) for share, evidence in curve]
    costs = [perplexity(on_b.nats)] + [cost for _, cost in points]
    text = "".join(document.text for document in b.test)
    return {
        "b_records": store.count(),
        "b_without": costs[0],
        "b_with_memory_of_b": costs[-1],
        "b_reduction": 1 - costs[-1] / costs[0],
        "b_bits_per_byte": bits_per_byte(float(on_b.nats.double().sum()), text),
        "b_bits_per_byte_with_memory": bits_per_byte(float(mixed_nats(on_b, mixture).double().sum()), text),
        "b_curve": {f"{share:.3f}": cost for share, cost in points},
        "largest_rise_with_size": max(after / before - 1 for before, after in pairwise(costs)),
        "a_with_memory_of_b": _with_memory(on_a, mixture),
        "a_change_by_memory_of_b": _with_memory(on_a, mixture) / perplexity(on_a.nats) - 1,
        "mixture": asdict(mixture),
    }


def _exactness(model: LanguageModel, store: Store, test: Sequence[Document]) -> dict[str, Any]:
    """Without weight the model is unchanged to the last bit; with it, probabilities sum to one."""
    document = test[0]
    asked = retrieve(model, store, document.text, k=NEIGHBOURS)
    alone = retrieve(model, None, document.text)
    unchanged = torch.equal(mixed_nats(asked, Mixture(1.0, 0.0)), alone.nats)
    lines = [line for line in document.text.splitlines() if line.strip()][:20]
    totals = [
        float(predict(model, store, line, Mixture(1.0, 0.5), touch=False).probabilities.double().sum())
        for line in lines
    ]
    return {
        "without_weight_equal": float(unchanged),
        "sum_error": max(abs(total - 1) for total in totals),
    }


def _with_memory(evidence: Evidence, mixture: Mixture) -> float:
    return perplexity(mixed_nats(evidence, mixture))


STUDY = Study(
    name="knn-lm",
    title="Nearest-neighbour language model: reading lowers perplexity with no gradient step",
    measure=measure,
    thresholds={
        "a_reduction": Threshold(">=", 0.04),
        "a_valid_reduction": Threshold(">=", 0.04),
        "a_weight": Threshold(">", 0.0),
        "b_reduction": Threshold(">=", 0.15),
        "largest_rise_with_size": Threshold("<=", 0.02),
        "index_difference": Threshold("<", 0.01),
        "without_weight_equal": Threshold("==", 1.0),
        "sum_error": Threshold("<=", 1e-5),
    },
    paper=[
        Figure("perplexity of WikiText-103, test, without memory", 18.65, "Khandelwal et al. 2020"),
        Figure("perplexity of WikiText-103, test, with a memory of its training text", 16.12, "ibid."),
        Figure("perplexity of Wiki-100M's model", 19.59, "ibid."),
        Figure("the same with a memory of three billion tokens", 13.73, "ibid."),
    ],
)
