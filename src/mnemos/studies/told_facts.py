"""Facts told in sentences to a model with an attached memory, and asked of it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from mnemos.models.hugging_face import Attachment

FACTS, NAMES, VALUES, WORDS = 8, 32, 16, 16  # the tokens: names from 0, then values, then words
SENTENCE, QUESTION = 6, 3  # tokens


class Facts(NamedTuple):
    """What documents say."""

    names: Int[Tensor, "documents facts"]
    values: Int[Tensor, "documents facts"]
    value_first: bool = False  # whether sentences say the value before the name


def draw_facts(
    documents: int, generator: torch.Generator, facts: int = FACTS, *, value_first: bool = False
) -> Facts:
    """Other names and other values for each document; no name twice in one."""
    names = torch.rand(documents, NAMES, generator=generator).argsort(1)[:, :facts]
    values = torch.randint(VALUES, (documents, facts), generator=generator) + NAMES
    return Facts(names, values, value_first)


def words(shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "..."]:
    return torch.randint(WORDS, shape, generator=generator) + NAMES + VALUES


def sentences(facts: Facts, generator: torch.Generator) -> Int[Tensor, "documents facts time"]:
    """Each fact somewhere among words that say nothing: the name, and the value after it."""
    first, second = facts[:2][:: -1 if facts.value_first else 1]
    told = words((*first.shape, SENTENCE), generator)
    place = torch.randint(SENTENCE - 1, (*first.shape, 1), generator=generator)
    return told.scatter(2, place, first.unsqueeze(2)).scatter(2, place + 1, second.unsqueeze(2))


def questions(
    names: Int[Tensor, "documents facts"], generator: torch.Generator
) -> Int[Tensor, "documents facts time"]:
    """Words, and the name at the end: the model is to say the value."""
    before = words((*names.shape, QUESTION - 1), generator)
    return torch.cat([before, names.unsqueeze(2)], dim=2)


# Told to a model, and asked of it


def within_a_segment(model: Any, facts: Facts, generator: torch.Generator) -> Tensor:
    """The loss of answers to questions in the segment that told the facts, where no memory is needed."""
    documents, told = facts.names.shape
    chosen = torch.randint(told, (documents, FACTS), generator=generator)
    asked = questions(facts.names.gather(1, chosen), generator)
    text = torch.cat([sentences(facts, generator).flatten(1), asked.flatten(1)], dim=1)
    said = model(text).logits[:, -FACTS * QUESTION :][:, QUESTION - 1 :: QUESTION]
    return functional.cross_entropy(said.flatten(0, 1), facts.values.gather(1, chosen).flatten())


def asked_later(
    model: Any,
    attachment: "Attachment",
    facts: Facts,
    generator: torch.Generator,
    *,
    at_once: bool = False,
) -> Float[Tensor, "asked tokens"]:
    """Tells, and asks in passes that follow: what the model says to each question, document by document.

    Args:
        at_once: whether one pass tells all, or each sentence is a pass of its own.
    """
    told = sentences(facts, generator)
    passes = [told.flatten(1)] if at_once else list(told.unbind(1))
    asked = questions(facts.names, generator).flatten(0, 1)
    if any(part.carries_state for part in attachment.parts.values()) or attachment.segments:
        carried = attachment.new_cache()
        for text in passes:
            model(text, past_key_values=carried)
        carried.batch_repeat_interleave(facts.names.shape[1])
        return model(asked, past_key_values=carried).logits[:, -1]
    attachment.clear()
    with torch.no_grad(), attachment.memorize(read=False):
        for text in passes:
            model(text)
    said = model(asked).logits[:, -1]
    attachment.clear()
    return said


@torch.no_grad()
def answers(model: Any, asked: Int[Tensor, "facts time"]) -> Int[Tensor, " facts"]:
    """What the model says to questions."""
    return model(asked).logits[:, -1].argmax(-1)


@torch.no_grad()
def tell(model: Any, attachment: "Attachment", facts: Facts, generator: torch.Generator) -> None:
    """Each fact by itself: the source of its records is its name."""
    for name, sentence in zip(facts.names[0].tolist(), sentences(facts, generator)[0], strict=True):
        with attachment.memorize({"source": name}, read=False):
            model(sentence.unsqueeze(0))
