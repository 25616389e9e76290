"""Asking a memory in words: which records answer a phrase, and how to correct what they say."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.mixture import Mixture, mixture_weight
from mnemos.models.nearest_neighbour import Prediction, excerpt, predict
from mnemos.stores.base import DEFAULT_NAMESPACE, Store
from mnemos.tasks.text import encode

CORRECTION_OF = "correction of "  # how the source of a written correction begins


class Answer(NamedTuple):
    """A record that answers, and all that is known of it."""

    id: int
    token: str  # what it says comes next
    before: str  # the text around it, as far as the memory still holds it
    after: str
    distance: float  # Euclidean, of its key from the phrase's; 0 is the same
    share: float  # of what the memory says, 0 to 1
    source: str
    line: int
    position: int  # of the token in its source, from 0
    age: float  # seconds since it was written
    times_read: int


class Recollection(NamedTuple):
    """What a phrase brings back."""

    phrase: str
    continuation: str  # the likeliest next tokens, one after the other
    alone: str  # the likeliest next token by the model without memory
    weight: float  # of the memory in the first of them
    answers: list[Answer]  # nearest first


class Correction(NamedTuple):
    """What a correction changed."""

    phrase: str
    before: str  # the next token as it was
    after: str
    changed: list[int]  # records whose value is another now
    written: list[int]  # records that say how the answer goes on


def recall(
    language_model: LanguageModel,
    store: Store,
    phrase: str,
    mixture: Mixture,
    *,
    k: int = 64,
    show: int = 5,
    tokens: int = 8,
    namespace: str = DEFAULT_NAMESPACE,
) -> Recollection:
    """The records that answer a phrase, each with where it came from, and how model and memory go on.

    Args:
        k: how many records to ask for.
        show: how many of them to tell about; these count as read.
        tokens: length of the continuation, at least 1.
    """
    if tokens < 1 or show < 0:
        raise ValueError(f"tokens must be at least 1 and show at least 0, not {tokens} and {show}")
    prediction = predict(language_model, store, phrase, mixture, k=k, namespace=namespace, touch=False)
    answers = _answers(language_model, store, prediction, show)
    chosen = [int(prediction.probabilities.argmax())]
    while len(chosen) < tokens:
        prompt = phrase + _text(language_model, *chosen)
        following = predict(language_model, store, prompt, mixture, k=k, namespace=namespace, touch=False)
        chosen.append(int(following.probabilities.argmax()))
    alone = _text(language_model, int(prediction.model_probabilities.argmax()))
    if answers:  # to be told about is use; to be weighed among the k is not
        predict(language_model, store, phrase, mixture, k=len(answers), namespace=namespace, touch=True)
    return Recollection(phrase, _text(language_model, *chosen), alone, prediction.weight, answers)


def correct(
    language_model: LanguageModel,
    store: Store,
    phrase: str,
    answer: str,
    mixture: Mixture,
    *,
    k: int = 64,
    at_most: int = 8,
    namespace: str = DEFAULT_NAMESPACE,
) -> Correction:
    """Changes what the memory answers to a phrase, in as few records as it takes, nearest first.

    The first token of the answer becomes the value of the nearest records, one more at a time, until it
    is the likeliest token. Where these are too far away to decide it, a record is written under the
    phrase's own key instead. So is one for each further token of the answer, and where the keys of
    other tokens lie so near that one does not decide it, another. Written records have the source
    "correction of ...".

    Args:
        answer: with the space that it begins with, if it does.
        at_most: how many records may change, and how many may be written for one token.

    Raises:
        ValueError: the answer is empty, or the memory counts for too little to bring it about; no record
            has been changed then.
    """
    targets = encode(language_model.tokenizer, answer).ids.tolist()
    if not targets:
        raise ValueError("answer is empty: say what should come after the phrase")

    def ask(said: Sequence[int] = ()) -> Prediction:
        prompt = phrase + _text(language_model, *said)
        return predict(language_model, store, prompt, mixture, k=k, namespace=namespace, touch=False)

    first = ask()
    chosen = _fewest(first, targets[0], at_most, [])
    if chosen is None and _largest_weight(mixture) < 0.5:
        raise ValueError(
            f"the memory counts for {_largest_weight(mixture):.0%} at most, too little to change an answer"
        )
    own = list(range(0 if chosen is None else 1, len(targets)))  # tokens that have records of their own
    written = _write_answer(language_model, store, phrase, targets, own, first, namespace)
    if written:  # they are near the phrase themselves, and say something else
        chosen = _fewest(ask(), targets[0], at_most + len(written), written)
    if chosen is not None and len(chosen):
        found = store.get(chosen)
        metadata = [
            {**(facts or {}), "corrected": _text(language_model, int(token))}
            for facts, token in zip(found.metadata, found.values, strict=True)
        ]
        store.update(chosen, values=torch.full((len(chosen),), targets[0]).int(), metadata=metadata)
    for _ in range(at_most - 1):
        said = [int(ask(targets[:place]).probabilities.argmax()) for place in range(len(targets))]
        missed = [place for place, target in enumerate(targets) if said[place] != target]
        if not missed:
            break
        written += _write_answer(language_model, store, phrase, targets, missed, first, namespace)
    before, after = (_text(language_model, int(one.probabilities.argmax())) for one in (first, ask()))
    return Correction(phrase, before, after, [] if chosen is None else chosen.tolist(), written)


def _largest_weight(mixture: Mixture) -> float:
    """The memory's weight where a record has the very key."""
    return float(mixture_weight(mixture, torch.zeros(1, 1)))


def _fewest(
    prediction: Prediction, target: int, at_most: int, spared: list[int]
) -> Int[torch.Tensor, " records"] | None:
    """Ids of the nearest records to change so that `target` becomes the likeliest token; `spared` stay.

    None if changing so many does not do it.
    """
    values, ids = prediction.hits.values[0].long(), prediction.hits.ids[0]
    free = ~torch.isin(ids, ids.new_tensor(spared)) & (ids >= 0)
    wrong = ((values != target) & free).nonzero().flatten()
    probabilities = prediction.probabilities.clone()
    for count in range(min(at_most, len(wrong)) + 1):
        if int(probabilities.argmax()) == target:
            return ids[wrong[:count]].sort().values
        if count < len(wrong):
            moved = prediction.weight * float(prediction.shares[wrong[count]])
            probabilities[values[wrong[count]]] -= moved
            probabilities[target] += moved
    return None


def _write_answer(
    language_model: LanguageModel,
    store: Store,
    phrase: str,
    targets: list[int],
    places: list[int],
    first: Prediction,
    namespace: str,
) -> list[int]:
    """Records for the tokens at some places of the answer, under what the model sees before each of them."""
    if not places:
        return []
    nearest = first.hits.ids[0, :1]
    facts = (store.get(nearest).metadata[0] if len(nearest) and int(nearest) >= 0 else None) or {}
    model = language_model.model
    prompt = encode(language_model.tokenizer, phrase).ids
    tokens = torch.cat([prompt.new_tensor([model.start]), prompt, prompt.new_tensor(targets)])
    with torch.no_grad():
        features, _ = model.features(tokens[-model.context - 1 : -1].unsqueeze(0))
    source = CORRECTION_OF + str(facts.get("source", "")).removeprefix(CORRECTION_OF)
    metadata = [
        {"source": source, "position": position, "line": facts.get("line", 0), "text": ""}
        for position in places
    ]
    ids = store.write(
        features.keys[0, -len(targets) :][places].half(),
        torch.tensor([targets[place] for place in places]).int(),
        namespace=namespace,
        metadata=metadata,
    )
    return ids.tolist()


def _answers(language_model: LanguageModel, store: Store, prediction: Prediction, show: int) -> list[Answer]:
    hits = prediction.hits
    found = hits.ids[0][hits.ids[0] >= 0][:show]
    records = store.get(found)
    now = time.time()
    answers = []
    for row, id_ in enumerate(found.tolist()):
        facts: dict[str, Any] = records.metadata[row] or {}
        before, token, after = excerpt(language_model, store, id_)
        answers.append(
            Answer(
                id_,
                token,
                before,
                after,
                float(hits.scores[0, row]),
                float(prediction.shares[row]),
                facts["source"],
                facts["line"],
                facts["position"],
                max(0.0, now - float(records.usage.written_at[row])),
                int(records.usage.times_read[row]),
            )
        )
    return answers


def _text(language_model: LanguageModel, *tokens: int) -> str:
    start = language_model.model.start  # which the tokenizer does not know
    return language_model.tokenizer.decode([token for token in tokens if token != start])
