"""A trained network as a folder, and a conversation with it: a story is told to a store, and asked about."""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from mnemos.models.end_to_end import MemN2N
from mnemos.models.folder import ModelError, load_folder, save_folder
from mnemos.stores.base import Store
from mnemos.tasks.babi import Vocabulary, split_words

WEIGHTS = "model.safetensors"


class Answerer(NamedTuple):
    """A trained network with the words that it knows."""

    network: MemN2N
    words: Vocabulary
    fingerprint: str  # whose stories a store holds


def save_answerer(folder: str | Path, network: MemN2N, words: Vocabulary) -> Answerer:
    """Writes a network to a folder, over the one that is there; see `models.folder.save_folder`."""
    weights = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    config = {"class": "MemN2N", "arguments": network.configuration(), "words": list(words.words)}
    return Answerer(network, words, save_folder(folder, config, {WEIGHTS: save(weights)}))


def load_answerer(folder: str | Path) -> Answerer:
    """Opens what `save_answerer` wrote; the network is in evaluation mode.

    Raises:
        ModelError: no such network in the folder, or a file that is missing, truncated or altered.
    """
    config, contents, found = load_folder(folder, WEIGHTS)
    if config.get("class") != "MemN2N":
        raise ModelError(f"{folder} holds no network that answers questions about a story")
    network = MemN2N(**config["arguments"])
    network.load_state_dict(load(contents[WEIGHTS]))
    return Answerer(network.eval(), Vocabulary(config["words"]), found)


class Reply(NamedTuple):
    """An answer, and which sentence each hop looked at."""

    answer: str
    probability: float
    sentences: list[str]  # what the slots hold, in the order of time
    weights: list[list[float]]  # of every hop, for each of the sentences


@torch.no_grad()
def tell(answerer: Answerer, story: Store, sentence: str) -> None:
    """Writes a sentence to a store, which acknowledges it: it is part of the story from then on.

    Args:
        story: opened with the answerer's fingerprint, so that no other network's story is taken for it.

    Raises:
        LookupError: words that the network does not know, which it names; nothing is told.
        ValueError: no word.
    """
    _, keys, values, _ = answerer.network.memory.project(_embedded(answerer, sentence))
    story.write(keys[0], values[0], metadata=[{"text": sentence.strip()}])


@torch.no_grad()
def reply(answerer: Answerer, story: Store, question: str) -> Reply:
    """Answers from what was told last, as much of it as the network has slots.

    Raises:
        LookupError: unknown words in the question, or nothing was told.
    """
    network = answerer.network
    asked, _, _, _ = network.memory.project(_embedded(answerer, question))
    ids = story.ids()[-network.slots :]
    if not len(ids):
        raise LookupError("nothing was told yet: tell a sentence first")
    told = story.get(ids)
    keys, values = told.keys.unsqueeze(0), told.values.unsqueeze(0)
    state = network.memory.write(network.memory.initial_state(1), keys, values)
    answer = network.answer(state, asked)
    shares = answer.logits[0, 1:].softmax(0)
    texts = [str((facts or {}).get("text", "")) for facts in told.metadata]
    weights = answer.weights[0, :, : len(texts)].tolist()
    best = int(shares.argmax())
    return Reply(answerer.words.words[best], shares[best].item(), texts, weights)


def _embedded(answerer: Answerer, text: str) -> Tensor:
    words = split_words(text)
    if not words:
        raise ValueError(f"there is no word in {text!r}")
    return answerer.network.embed(torch.tensor([[answerer.words.numbers(words)]]))
