"""Steps 1 and 2: a model is trained on A, and reads B, beside the model that was fine-tuned on B."""

import copy
import csv
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import mnemos
from mnemos.demo import texts
from mnemos.demo.plan import Plan
from mnemos.demo.results import Learned, Trained
from mnemos.models.checkpoint import LanguageModel, load_model
from mnemos.models.hybrid import hybrid
from mnemos.models.mixture import Evidence, Mixture, mixed_nats, perplexity
from mnemos.models.reading import read_all
from mnemos.models.tuning import default_mixture, evidence, save_mixture, tune
from mnemos.progress import Advance, between
from mnemos.stores.base import Store
from mnemos.stores.maintenance import bytes_on_disk
from mnemos.tasks.text import Document, encode, repeated_lines, train_tokenizer

SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)  # of the store, for the curve over its size
ASK_EVERY = 3  # batches read; to ask about each would double the time that reading takes
WINDOW = 400  # tokens that the curve along the text averages over
POINTS = 240  # of that curve
TUNING_RATE = 1e-3  # a third of the training's, as is usual for a model that knows something


def train(plan: Plan, advance: Advance) -> Trained:
    """Step 1: a small language model on domain A, whose weights never change afterwards."""
    from mnemos.training import TrainingConfig, train_language_model

    a = texts.load(plan.folder).a
    tokenizer = train_tokenizer(a.train, plan.vocabulary)
    torch.manual_seed(plan.seed)
    network = hybrid(tokenizer.get_vocab_size() + 1, ["attention"] * plan.layers, width=plan.width)
    config = TrainingConfig(plan.steps, plan.seconds, seed=plan.seed)
    started = time.perf_counter()
    model = train_language_model(
        network, tokenizer, a.train, plan.model, config, progress=False, advance=advance
    )
    seconds = time.perf_counter() - started
    losses = _losses(plan.model)
    return Trained(
        seconds=seconds,
        steps=int(losses[-1][0]) if losses else 0,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        vocabulary=network.vocabulary_size,
        files=len(a.train),
        bytes=_size(a.train),
        losses=losses,
        perplexity=perplexity(evidence(model, None, a.test).nats),
        unigram=perplexity(unigram_nats(model, a.train, a.test)),
    )


def unigram_nats(
    model: LanguageModel, train: Sequence[Document], test: Sequence[Document]
) -> Float[Tensor, " tokens"]:
    """What a model costs that knows only how frequent each token is (counts plus one)."""
    counts = torch.ones(model.model.vocabulary_size, dtype=torch.float64)
    for document in train:
        ids = encode(model.tokenizer, document.text).ids
        counts += torch.bincount(ids, minlength=len(counts))
    costs = -(counts / counts.sum()).log()
    return torch.cat([costs[encode(model.tokenizer, document.text).ids] for document in test])


def _losses(folder: Path) -> list[list[Any]]:
    """[step, nats per token] of each run that the training logged, in the order of steps."""
    found: dict[int, float] = {}
    for log in sorted(folder.glob("logs/*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with open(log, encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row.get("loss")]
        found.update({int(row["step"]): float(row["loss"]) for row in rows})
    return [[step, found[step]] for step in sorted(found)]


def learn(plan: Plan, advance: Advance) -> Learned:
    """Step 2: B goes into a store, and what that is worth is measured on text of A and B unseen by all."""
    a, b = texts.load(plan.folder)
    model = load_model(plan.model)
    seconds, growth = _read(plan, model, b.train, between(advance, 0.0, 0.3))
    part = between(advance, 0.3, 0.5)
    tuned, steps, tuning_seconds = _fine_tune(plan, model, b.train, seconds, part)
    with mnemos.open(plan.memory, read_only=True) as store:
        advance(0.5, "fitting how much the memory counts")
        mixture = tune(model, store, [a.valid, b.valid])
        save_mixture(plan.model, mixture)
        advance(0.6, "scoring unseen text")
        on_a, on_b = (evidence(model, store, split.test) for split in (a, b))
        records, disk = store.count(), store.stats()["bytes"]
    unseen, full = (a.test, b.test), (on_a, on_b)
    curve = list(_curve(plan, model, mixture, unseen, full, between(advance, 0.75, 1.0)))
    lines = repeated_lines(b.train, b.test)
    return Learned(
        seconds=seconds,
        files=len(b.train),
        bytes=_size(b.train),
        records=records,
        disk=disk,
        a_without=perplexity(on_a.nats),
        a_with=perplexity(mixed_nats(on_a, mixture)),
        a_tuned=perplexity(evidence(tuned, None, a.test).nats),
        b_without=perplexity(on_b.nats),
        b_with=perplexity(mixed_nats(on_b, mixture)),
        b_tuned=perplexity(evidence(tuned, None, b.test).nats),
        tuning_seconds=tuning_seconds,
        tuning_steps=steps,
        duplicates=lines.repeated,
        lines=lines.lines,
        growth=growth,
        curve=curve,
        along=_along(on_b.nats, mixed_nats(on_b, mixture), _size(b.test)),
    )


def _read(
    plan: Plan, model: LanguageModel, documents: Sequence[Document], advance: Advance
) -> tuple[float, list[dict[str, Any]]]:
    """Reads B into the memory; returns the seconds that it took and how the memory grew."""
    path = plan.fresh("memory")
    fingerprint = model.fingerprint
    growth: list[dict[str, Any]] = []
    mixture = default_mixture(model.model.width)  # the fitted one needs a memory first
    with mnemos.open(path, metric="euclidean", fingerprint=fingerprint) as store:
        started = time.perf_counter()
        for point in read_all(model, store, documents, mixture, ask_every=ASK_EVERY):
            advance(point.share, f"reading {Path(point.source).name}")
            growth.append(
                {
                    "bytes_read": point.bytes_read,
                    "records": point.records,
                    "disk": bytes_on_disk(path),
                    "without": point.without,
                    "with_memory": None if math.isnan(point.with_memory) else point.with_memory,
                }
            )
        return time.perf_counter() - started, growth


def _fine_tune(
    plan: Plan, model: LanguageModel, documents: Sequence[Document], seconds: float, advance: Advance
) -> tuple[LanguageModel, int, float]:
    """The comparator: the same model, all of its weights trained on B for as long as reading took."""
    from mnemos.training import TrainingConfig, train_language_model

    folder = plan.fresh("tuned")
    config = TrainingConfig(seconds=seconds, learning_rate=TUNING_RATE, seed=plan.seed)
    started = time.perf_counter()
    tuned = train_language_model(
        copy.deepcopy(model.model),
        model.tokenizer,
        documents,
        folder,
        config,
        progress=False,
        advance=lambda share, detail: advance(share, f"fine-tuning to compare, {detail}"),
    )
    taken = time.perf_counter() - started
    losses = _losses(folder)
    shutil.rmtree(folder)
    return tuned, int(losses[-1][0]) + 1 if losses else 0, taken


def _curve(
    plan: Plan,
    model: LanguageModel,
    mixture: Mixture,
    unseen: Sequence[Sequence[Document]],
    full: Sequence[Evidence],
    advance: Advance,
) -> Iterator[dict[str, Any]]:
    """Perplexity on the unseen texts of A and B with only the first records of the memory."""
    with mnemos.open(plan.memory, read_only=True) as store:
        ids = store.ids()
        for row, share in enumerate(SHARES):
            advance(row / len(SHARES), f"scoring with {share:.0%} of the memory")
            kept = max(1, round(len(ids) * share))
            found = full
            if kept < len(ids):
                with first_records(store, ids[:kept], plan.fresh("part"), model) as part:
                    found = [evidence(model, part, documents) for documents in unseen]
            a, b = (perplexity(mixed_nats(one, mixture)) for one in found)
            yield {"share": share, "records": kept, "a": a, "b": b}
    plan.fresh("part")


@contextmanager
def first_records(
    store: Store, ids: Int[Tensor, " records"], path: Path, model: LanguageModel
) -> Iterator[Store]:
    """A store of its own with the records of the given ids."""
    with mnemos.open(path, metric="euclidean", fingerprint=model.fingerprint) as part:
        for some in ids.split(8192):
            part.write(*store.gather(some))
        yield part


def _along(
    without: Float[Tensor, " tokens"], remembered: Float[Tensor, " tokens"], size: int
) -> list[dict[str, Any]]:
    """Nats per token along the text, each the mean of a window."""
    window = min(WINDOW, len(without))
    means = [
        torch.cat([nats.new_zeros(1, dtype=torch.float64), nats.double().cumsum(0)])
        for nats in (without, remembered)
    ]
    starts = torch.linspace(0, len(without) - window, min(POINTS, len(without) - window + 1)).long()
    rows = [(total[starts + window] - total[starts]) / window for total in means]
    middle = (starts + window / 2) / len(without) * size
    return [
        {"bytes": place, "without": one, "with_memory": other}
        for place, one, other in zip(middle.tolist(), *(row.tolist() for row in rows), strict=True)
    ]


def _size(documents: Sequence[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)
