"""The nearest-neighbour language model (Khandelwal et al. 2020) over an open store.

A record is one token of a document that was read: its key is what the model saw before it (the input
of the last feed-forward layer), its value the token that followed. Reading writes records and changes
no weight.

The records of a document do not depend on how often reading it was interrupted, and the store itself
is the journal: what it acknowledged is not read again.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.mixture import (
    Evidence,
    Mixture,
    concatenate_evidence,
    memory_log_weights,
    mixed_nats,
    mixture_weight,
)
from mnemos.models.transformer import Features
from mnemos.stores.base import DEFAULT_NAMESPACE, Hits, Store, StoreError
from mnemos.tasks.text import Document, count_bytes, encode

WINDOWS = 16  # run together, and acknowledged together


class OtherModelError(StoreError):
    """The store holds the keys of another model."""


class ChangedDocumentError(StoreError):
    """The store holds a document of this name with another text."""


class Progress(NamedTuple):
    """A batch of a document's tokens that the store has acknowledged, and what they cost before that."""

    source: str
    tokens: int  # of this document, acknowledged so far
    total: int  # tokens of the document
    written: int  # tokens of this batch
    bytes: int  # of text in this batch
    model_nats: float  # cost of the batch under the model alone
    memory_nats: float  # with the memory as it was before this batch


class Prediction(NamedTuple):
    """The next token after a prompt."""

    probabilities: Float[Tensor, " vocabulary"]
    model_probabilities: Float[Tensor, " vocabulary"]
    weight: float  # of the memory in this prediction
    shares: Float[Tensor, " found"]  # how much each record counts within the memory's part
    hits: Hits  # the records that answered, nearest first; one row


def check_model(language_model: LanguageModel, store: Store) -> None:
    """Raises OtherModelError unless the store's records are, or will be, this model's.

    A store that was opened with `fingerprint=language_model.fingerprint` and `metric="euclidean"` is.
    """
    facts = store.stats()
    if facts["fingerprint"] not in (None, language_model.fingerprint):
        raise OtherModelError(
            f"the store holds the keys of model {facts['fingerprint'][:12]}, "
            f"and this is model {language_model.fingerprint[:12]}: open the model that it was read with"
        )
    schema, width = store.schema, language_model.model.width
    if schema and (schema.metric, schema.key_size, schema.value_shape) != ("euclidean", width, ()):
        raise OtherModelError(
            f"the store compares {schema.key_size} numbers by {schema.metric}, "
            f"where this model needs {width} by euclidean distance, and single tokens as values"
        )


def memorize(
    language_model: LanguageModel,
    store: Store,
    document: Document,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    mixture: Mixture | None = None,
    ask_every: int = 1,
    k: int = 64,
) -> Iterator[Progress]:
    """Reads a document into the store, and yields after every batch that the store has acknowledged.

    A record is written per token: the key in float16, the token's id, as strength the surprise in nats
    under the model alone, and {"source", "position" (of the token, from 0), "line" (from 1), "text"
    (what identifies the text)}. What was acknowledged in an earlier call is not read again, and the
    records come out the same, bit for bit, wherever reading was interrupted.

    Args:
        mixture: how to mix in the memory for `Progress.memory_nats`; None leaves the memory unasked.
        ask_every: ask only about every so manyth batch, which is faster; `memory_nats` of the others is NaN.
        k: how many records to ask for.

    Raises:
        OtherModelError: the store is another model's.
        ChangedDocumentError: a document of this name and another text has been read.
    """
    check_model(language_model, store)
    tokens = encode(language_model.tokenizer, document.text)
    text = hashlib.sha256(document.text.encode()).hexdigest()[:12]
    done = _acknowledged(store, document.name, text, namespace)
    for number, step in enumerate(_read(language_model, tokens.ids, done)):
        nats = step.nats
        if mixture is not None and number % ask_every:
            nats = nats * math.nan
        elif mixture is not None:
            nats = mixed_nats(_ask(store, step, namespace, k, approximate=False, touch=False), mixture)
        metadata = [
            {"source": document.name, "position": position, "line": line, "text": text}
            for position, line in enumerate(tokens.lines[step.begin : step.end].tolist(), step.begin)
        ]
        store.write(
            step.keys.half(), step.targets.int(), namespace=namespace, metadata=metadata, strength=step.nats
        )
        yield Progress(
            document.name,
            step.end,
            len(tokens.ids),
            len(step.targets),
            count_bytes(language_model.tokenizer, step.targets),
            float(step.nats.double().sum()),
            float(nats.double().sum()),
        )


def _acknowledged(store: Store, source: str, text: str, namespace: str) -> int:
    """How many tokens of a document the store holds already: what follows its last one is unread."""
    ids = store.ids({"namespace": namespace, "source": source})
    if not len(ids):
        return 0
    last = store.get(ids[-1:]).metadata[0] or {}
    if last.get("text") != text:
        raise ChangedDocumentError(f"{source} was read with another text: forget it first, or rename it")
    return int(last["position"]) + 1


def retrieve(
    language_model: LanguageModel,
    store: Store | None,
    text: str,
    *,
    k: int = 64,
    namespace: str = DEFAULT_NAMESPACE,
    approximate: bool = False,
    touch: bool = False,
) -> Evidence:
    """Asks the model, and the memory if there is one, about every token of a text, once.

    Args:
        store: None, like an empty store, leaves the model alone.
        k: how many records to ask for per token.
        approximate, touch: as in `Store.read`; by default, being judged does not count as use.
    """
    if store is not None:
        check_model(language_model, store)
    ids = encode(language_model.tokenizer, text).ids
    if not len(ids):
        return Evidence(torch.zeros(0), torch.zeros(0, k), torch.zeros(0, k, dtype=torch.bool))
    parts = [
        _ask(store, step, namespace, k, approximate=approximate, touch=touch)
        for step in _read(language_model, ids)
    ]
    return concatenate_evidence(parts)


class _Step(NamedTuple):
    """What the model made of the tokens from position `begin` to before `end`."""

    begin: int
    end: int
    keys: Float[Tensor, "tokens width"]
    targets: Int[Tensor, " tokens"]
    nats: Float[Tensor, " tokens"]


def _read(language_model: LanguageModel, ids: Int[Tensor, " tokens"], done: int = 0) -> Iterator[_Step]:
    """Runs the model over a text, except for steps that lie wholly before position `done`.

    Windows of the model's context overlap by half, so that every token but the first ones is predicted
    from at least half a context. Windows and batches of them lie on one grid for a text, whatever
    `done` is: the last bits of a matrix product depend on its shape.
    """
    model = language_model.model
    context, stride = model.context, model.context // 2
    inputs = torch.cat([ids.new_tensor([model.start]), ids[:-1]])
    count = 1 + max(0, -(-(len(ids) - context) // stride))
    padded = torch.nn.functional.pad(inputs, (0, context + (count - 1) * stride - len(ids)))
    windows = padded.unfold(0, context, stride)
    for first in range(0, count, WINDOWS):
        last = min(first + WINDOWS, count)
        begin = first * stride + (context - stride if first else 0)
        end = min(last * stride + context - stride, len(ids))
        if end > done:
            features = _features(language_model, windows[first:last])
            fresh = [part[:, -stride:].flatten(0, 1) for part in features]
            if not first:
                fresh = [
                    torch.cat([part[0, :-stride], new]) for part, new in zip(features, fresh, strict=True)
                ]
            logits, keys = (part[: end - begin] for part in fresh)
            targets = ids[begin:end]
            nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            old = max(0, done - begin)
            yield _Step(begin + old, end, keys[old:], targets[old:], nats[old:])


def _features(language_model: LanguageModel, tokens: Int[Tensor, "batch time"]) -> Features:
    """What the model makes of tokens, on its own device, brought back to where the tokens are."""
    model = language_model.model
    training = model.training
    with torch.no_grad():
        features, _ = model.eval().features(tokens.to(model.embedding.weight.device))
    model.train(training)
    return Features(*(part.float().to(tokens.device) for part in features))


def _ask(
    store: Store | None, step: _Step, namespace: str, k: int, *, approximate: bool, touch: bool
) -> Evidence:
    if store is None or store.schema is None:
        nothing = step.keys.new_zeros(len(step.targets), k)
        return Evidence(step.nats, nothing + torch.inf, nothing.bool())
    where = {"namespace": namespace}
    hits = store.read(step.keys, k, where=where, approximate=approximate, touch=touch)
    return Evidence(step.nats, hits.scores, (hits.values == step.targets.unsqueeze(1)) & (hits.ids >= 0))


def predict(
    language_model: LanguageModel,
    store: Store | None,
    prompt: str,
    mixture: Mixture,
    *,
    k: int = 64,
    namespace: str = DEFAULT_NAMESPACE,
    touch: bool = True,
) -> Prediction:
    """The distribution of the token after a prompt, and the records that shaped it.

    `store.get(ids)` of the hits that were found tells where each of them came from.

    Args:
        prompt: at least one token; what exceeds the model's context is cut off on the left.
    """
    if store is not None:
        check_model(language_model, store)
    model = language_model.model
    ids = encode(language_model.tokenizer, prompt).ids
    if not len(ids):
        raise ValueError("prompt is empty: there is nothing to ask the memory about")
    tokens = torch.cat([ids.new_tensor([model.start]), ids])[-model.context :]
    logits, keys = (part[0, -1:] for part in _features(language_model, tokens.unsqueeze(0)))
    alone = logits[0].softmax(0)
    if store is None or store.schema is None:
        nothing = Hits(ids.new_full((1, 0), -1), keys.new_zeros(1, 0), ids.new_zeros(1, 0))
        return Prediction(alone, alone, 0.0, ids.new_zeros(0), nothing)
    hits = store.read(keys, k, where={"namespace": namespace}, touch=touch)
    weight = mixture_weight(mixture, hits.scores)
    counts = memory_log_weights(mixture.temperature, hits.scores)[0].exp()
    remembered = torch.zeros_like(alone).index_add(0, hits.values[0].long(), counts)
    return Prediction(weight * remembered + (1 - weight) * alone, alone, float(weight), counts, hits)


def excerpt(
    language_model: LanguageModel, store: Store, record: int, *, before: int = 24, after: int = 8
) -> tuple[str, str, str]:
    """The text around a record as the store remembers it: what came before, its token, what followed.

    It is put together from the neighbouring records of the same source, so it needs no file; what has
    been forgotten in between is left out.

    Args:
        record: its id.
        before, after: how many tokens.
    """
    found = store.get(torch.tensor([record]))
    facts = found.metadata[0] or {}
    middle = facts["position"]
    where = {
        "namespace": found.namespaces[0],
        "source": facts["source"],
        "position": {"ge": middle - before, "le": middle + after},
    }
    around = store.get(store.ids(where))
    placed = sorted(
        ((facts or {})["position"], int(token))
        for facts, token in zip(around.metadata, around.values, strict=True)
    )
    parts = (
        [token for position, token in placed if position < middle],
        [token for position, token in placed if position == middle],
        [token for position, token in placed if position > middle],
    )
    left, token, right = (language_model.tokenizer.decode(part) for part in parts)
    return left, token, right
