"""Step 5: a document is forgotten, and an answer corrected."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

import mnemos
from mnemos.demo import texts
from mnemos.demo.erasure import in_other_records, keys_in_files
from mnemos.demo.learning import first_records
from mnemos.demo.plan import Plan
from mnemos.demo.results import Forgotten
from mnemos.models.checkpoint import LanguageModel, load_model
from mnemos.models.mixture import Mixture, mixed_nats, perplexity
from mnemos.models.reading import read_all
from mnemos.models.recollection import correct, recall
from mnemos.models.tuning import evidence, load_mixture
from mnemos.progress import Advance
from mnemos.stores.base import Store
from mnemos.tasks.text import Document, encode, read_documents

NEAREST = 8  # records asked for by each key of the document that is forgotten


def revise(plan: Plan, advance: Advance) -> Forgotten:
    """Step 5, on a copy of the memory: a document is forgotten, and a fact from a letter corrected."""
    model, b = load_model(plan.model), texts.load(plan.folder).b
    mixture = load_mixture(plan.model, model.model.width)
    path = plan.fresh("revised")
    with mnemos.open(plan.memory, read_only=True) as store:
        store.snapshot(path)
    document = sorted(b.train, key=lambda document: len(document.text))[len(b.train) // 2]
    forgotten = _forget(plan, path, model, mixture, document, advance)
    advance(0.9, "correcting an answer")
    with mnemos.open(path) as store:
        before, after = _correct(plan, store, model, mixture)
    return Forgotten(texts.QUESTION, before, after, texts.CORRECTION, **forgotten)


def _correct(plan: Plan, store: Store, model: LanguageModel, mixture: Mixture) -> tuple[str, str]:
    """Reads a letter, corrects a fact of it, and returns what was answered before and after."""
    letters = read_documents([plan.folder / "text" / "letter.txt"])
    for _ in read_all(model, store, letters, None):
        pass
    length = len(encode(model.tokenizer, texts.CORRECTION).ids)

    def answer() -> str:
        return recall(model, store, texts.QUESTION, mixture, show=0, tokens=length).continuation

    before = answer()
    correct(model, store, texts.QUESTION, texts.CORRECTION, mixture)
    return before, answer()


def _forget(
    plan: Plan,
    path: Path,
    model: LanguageModel,
    mixture: Mixture,
    document: Document,
    advance: Advance,
) -> dict[str, Any]:
    """Forgets one document and returns what was so before and after, as fields of `Forgotten`."""
    b = texts.load(plan.folder).b

    def score(store: Store) -> float:
        return perplexity(mixed_nats(evidence(model, store, [document]), mixture))

    def scores(store: Store, ids: Int[Tensor, " records"]) -> tuple[float, float]:
        """Perplexity on the document from its own records, and from all."""
        with first_records(store, ids, plan.fresh("own"), model) as own:
            alone = score(own)
        return alone, score(store)

    def returned(store: Store) -> int:
        """How many of its records are among the nearest to its own keys."""
        near = store.read(keys, NEAREST, touch=False).ids
        return int(torch.isin(near, ids).sum())

    where = {"source": document.name}
    with mnemos.open(path) as store:
        advance(0.0, f"scoring {Path(document.name).name}")
        ids = store.ids(where)
        keys = store.gather(ids)[0]
        before = scores(store, ids)
        near_before = returned(store)
        unlike = keys[~in_other_records(store, keys, ids)]
    found_before = keys_in_files(path, unlike)
    advance(0.4, f"forgetting {Path(document.name).name}")
    with mnemos.open(path) as store:
        store.delete(where=where)
        freed = store.compact()
    with mnemos.open(path, read_only=True) as store:  # as whoever comes later would
        after = scores(store, store.ids(where))
        near_after = returned(store)
    found_after = keys_in_files(path, unlike)
    advance(0.6, f"reading all but {Path(document.name).name}, to compare")
    others = [other for other in b.train if other.name != document.name]
    never_path = plan.fresh("never")
    with mnemos.open(never_path, metric="euclidean", fingerprint=model.fingerprint) as store:
        for _ in read_all(model, store, others, None):
            pass
        never = score(store)
    for leftover in ("own", "never"):
        plan.fresh(leftover)
    return {
        "document": document.name,
        "records": len(ids),
        "returned_before": near_before,
        "returned_after": near_after,
        "keys_before": found_before,
        "keys_after": found_after,
        "keys_sought": len(unlike),
        "bytes_freed": freed,
        "without": perplexity(evidence(model, None, [document]).nats),
        "alone_before": before[0],
        "alone_after": after[0],
        "whole_before": before[1],
        "whole_after": after[1],
        "never": never,
    }
