"""Small models with attached memories, taught from nothing to answer what they were told."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

import mnemos
from mnemos.memories.delta_rule import DeltaRule
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.told_facts import (
    FACTS,
    NAMES,
    VALUES,
    WORDS,
    Facts,
    asked_later,
    draw_facts,
    within_a_segment,
)

if TYPE_CHECKING:
    from mnemos.models.hugging_face import Attachment

WIDTH, LAYER, BATCH = 64, 1, 32
KINDS = ("attention", "segments", "delta rule")


def small_model(seed: int) -> Any:
    from mnemos.models.hugging_face.surface import random_model

    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    # With transformers' own 0.02 all scores of so narrow a model are near zero at first; and tokens that are
    # small beside what attention adds are lost from the first layer on.
    model = random_model(
        "llama", vocab_size=NAMES + VALUES + WORDS, initializer_range=WIDTH**-0.5, **sizes, **heads
    )
    torch.nn.init.normal_(model.get_input_embeddings().weight)
    return model


def attached(model: Any, kind: str, *, shared: bool = False, store: Any = None) -> "Attachment":
    if kind == "segments":
        return mnemos.attach(model, segments=64)
    if kind == "delta rule":
        fast_weights = DeltaRule(WIDTH, heads=4, key_size=16, value_size=16)
        return mnemos.attach(model, {LAYER - 1: fast_weights})
    memory = mnemos.AttentionMemory(top_k=8, capacity=1024, shared=shared)
    return mnemos.attach(model, {LAYER: memory}, store=store)


def train(
    kind: str,
    steps: int,
    seed: int,
    advance: Advance,
    *,
    within: bool = True,
    value_first: bool = False,
) -> tuple[Any, "Attachment"]:
    """A model that was taught from nothing, with its memory attached."""
    model = small_model(seed)
    attachment = attached(model.train(), kind)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        told = 1 + step % FACTS  # few are told apart sooner than many
        facts = draw_facts(BATCH, generator, told, value_first=value_first)
        said = asked_later(model, attachment, facts, generator)
        later = functional.cross_entropy(said, facts.values.flatten())
        return later + within_a_segment(model, facts, generator) if within else later

    fit(model, loss, steps, learning_rate=2e-3, advance=advance)
    model.eval()
    return model, attachment


@torch.no_grad()
def recall(
    model: Any,
    attachment: "Attachment",
    documents: int,
    seed: int,
    *,
    facts: int = FACTS,
    at_once: bool = False,
    value_first: bool = False,
) -> float:
    """The share of right answers about documents that were never seen."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    drawn = draw_facts(documents, generator, facts, value_first=value_first)
    said = asked_later(model, attachment, drawn, generator, at_once=at_once).argmax(-1)
    return (said == drawn.values.flatten()).double().mean().item()


# Other memories, and other ways to teach


def other_ways(steps: int, documents: int, seed: int, advance: Advance) -> dict[str, float]:
    """The recall of other memories, and of attention that was taught otherwise, after as many steps."""
    parts = [between(advance, number / 5, (number + 1) / 5) for number in range(5)]
    found = {
        f"recall_{kind.replace(' ', '_')}": recall(*train(kind, steps, seed, part), documents, seed)
        for kind, part in zip(KINDS[1:], parts, strict=False)
    }
    trained = train("attention", steps, seed, parts[2], within=False)
    found["recall_never_asked_within"] = recall(*trained, documents, seed)
    trained = train("attention", steps, seed, parts[3], value_first=True)
    found["recall_value_first"] = recall(*trained, documents, seed, value_first=True)
    return found | attached_afterwards(steps, documents, seed, parts[4])


def attached_afterwards(steps: int, documents: int, seed: int, advance: Advance) -> dict[str, float]:
    """The recall of a model that learned without a memory: attached as it is, and with its gates taught."""
    model, generator = small_model(seed), torch.Generator().manual_seed(seed)

    def drawn(step: int) -> Facts:
        return draw_facts(BATCH, generator, 1 + step % FACTS)

    def within(step: int) -> Tensor:
        return within_a_segment(model, drawn(step), generator)

    fit(model.train(), within, steps, learning_rate=2e-3, advance=between(advance, 0.0, 0.8))
    attachment = attached(model.eval(), "attention")
    found = {"recall_attached_afterwards": recall(model, attachment, documents, seed)}
    model.requires_grad_(False)
    for weight in attachment.parameters():  # eight numbers
        weight.requires_grad_(True)

    def later(step: int) -> Tensor:
        facts = drawn(step)
        said = asked_later(model, attachment, facts, generator)
        return functional.cross_entropy(said, facts.values.flatten())

    fit(model, later, max(1, steps // 6), learning_rate=0.05, advance=between(advance, 0.8, 1.0))
    return found | {"recall_gates_taught": recall(model, attachment, documents, seed)}
