"""The nearest-neighbour language model (Khandelwal et al. 2020) over an open store.

A record is one token of a document that was read: its key is what the model saw before it (the input
of the last feed-forward layer), its value the token that followed. Reading writes records and changes
no weight. The prediction is p = w p_memory + (1 - w) p_model (eq. 3), where p_memory sums
exp(-d² / temperature) over the nearest records that agree on a token (eq. 2).

The records of a document do not depend on how often reading it was interrupted, and the store itself
is the journal: what it acknowledged is not read again.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.models.checkpoint import LanguageModel
from mnemos.stores.base import DEFAULT_NAMESPACE, Hits, Store, StoreError
from mnemos.tasks.text import Document


class OtherModelError(StoreError):
    """The store holds the keys of another model."""


class ChangedDocumentError(StoreError):
    """The store holds a document of this name with another text."""


class Evidence(NamedTuple):
    """What model and memory say of each token of a text, before they are mixed."""

    nats: Float[Tensor, " tokens"]  # negative log-probability under the model alone
    distances: Float[Tensor, "tokens found"]  # Euclidean, nearest first; infinite where fewer were found
    agrees: Bool[Tensor, "tokens found"]  # whether the record's value is the token


@dataclass(frozen=True)
class Mixture:
    """How much the memory counts: less the further away the nearest record is.

    The memory's weight is `weight` x 1 / (1 + exp((d - distance) / softness)), d the Euclidean distance
    to the nearest record; with an infinite `distance`, the paper's constant.

    Args:
        temperature: of p_memory's softmax over -d², above 0.
        weight: 0 (the model alone, bit for bit) to 1.
        distance: where the weight is half of its largest.
        softness: over what distance it falls, above 0.
    """

    temperature: float
    weight: float
    distance: float = math.inf
    softness: float = 1.0


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
    hits: Hits  # the records that answered, nearest first; one row


def check_model(language_model: LanguageModel, store: Store, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Raises OtherModelError if the store's records of a namespace are not this model's."""
    raise NotImplementedError


def memorize(
    language_model: LanguageModel,
    store: Store,
    document: Document,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    mixture: Mixture | None = None,
    k: int = 64,
) -> Iterator[Progress]:
    """Reads a document into the store, and yields after every batch that the store has acknowledged."""
    raise NotImplementedError


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
    """Asks the model, and the memory if there is one, about every token of a text, once."""
    raise NotImplementedError


def mixed_nats(evidence: Evidence, mixture: Mixture) -> Float[Tensor, " tokens"]:
    """Negative log-probability of every token under the mixture."""
    raise NotImplementedError


def fit_mixture(evidence: Sequence[Evidence]) -> Mixture:
    """The mixture that costs the given validation texts least, each text's mean counted alike."""
    raise NotImplementedError


def predict(
    language_model: LanguageModel,
    store: Store | None,
    prompt: str,
    mixture: Mixture,
    *,
    k: int = 64,
    namespace: str = DEFAULT_NAMESPACE,
) -> Prediction:
    """The distribution of the token after a prompt, and the records that shaped it.

    The model of `mnemos recall` too: `store.get(prediction.hits.ids[0])` are the records that answer.
    """
    raise NotImplementedError


def excerpt(
    language_model: LanguageModel, store: Store, record: int, *, before: int = 24, after: int = 8
) -> tuple[str, str, str]:
    """The text around a record as the store remembers it: what came before, its token, what followed.

    It is put together from the neighbouring records of the same source, so it needs no file.
    """
    raise NotImplementedError


def perplexity(nats: Float[Tensor, " tokens"]) -> float:
    """exp of the mean cost per token."""
    return float(nats.double().mean().exp())
