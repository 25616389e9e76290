"""The texts that a language model's memory was made of, put together again from its records."""

from collections import defaultdict

import torch
from jaxtyping import Int
from torch import Tensor

from mnemos.stores.base import DEFAULT_NAMESPACE, Store

PART = 4096  # records that are read at a time


def remembered(
    store: Store, *, namespace: str = DEFAULT_NAMESPACE, least: int = 2
) -> list[tuple[str, Int[Tensor, " tokens"]]]:
    """Every stretch of text that the store holds without a gap: its source, and its tokens.

    No file is needed: a record says which token stood where. What was forgotten is not there, what was
    corrected is as it was corrected, and where something is missing a stretch ends. Stretches come by
    source, in the order in which the sources were read.

    Args:
        least: tokens of a stretch; shorter ones are left out.
    """
    places: dict[str, dict[int, int]] = defaultdict(dict)
    for ids in store.ids({"namespace": namespace}).split(PART):
        records = store.get(ids)
        for facts, token in zip(records.metadata, records.values.tolist(), strict=True):
            if facts and "source" in facts and "position" in facts:
                places[facts["source"]][facts["position"]] = token
    stretches = []
    for source, tokens in places.items():
        positions = torch.tensor(sorted(tokens))
        ends = (positions.diff() != 1).nonzero().squeeze(1) + 1
        for part in positions.tensor_split(ends):
            if len(part) >= least:
                stretches.append((source, torch.tensor([tokens[place] for place in part.tolist()])))
    return stretches
