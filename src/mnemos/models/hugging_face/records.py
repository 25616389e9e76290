"""Banks as records of a store: one record for the keys and values of one step at one layer."""

from collections.abc import Mapping
from typing import Any

import torch

from mnemos.models.hugging_face.bank import Bank, Staged
from mnemos.stores.base import Store


def write(store: Store, namespace: str, staged: Mapping[int, Staged], metadata: Mapping[str, Any]) -> None:
    """Writes what all layers staged in one transaction: acknowledged together, or not at all.

    The metadata of a record are those given, and the "layer", the "step" within the write, and the "heads".
    """
    facts, keys, values = [], [], []
    for layer, new in staged.items():
        heads = new.keys.shape[2]
        facts += [{**metadata, "layer": layer, "step": n, "heads": heads} for n in range(new.keys.shape[1])]
        keys.append(new.keys.flatten(0, 1).flatten(1))
        values.append(new.values.flatten(0, 1).flatten(1))
    if len({x.shape[1] for x in keys}) > 1 or len({x.shape[1] for x in values}) > 1:
        raise ValueError(
            "a store holds keys of one size; these layers have others: give each model one store"
        )
    if facts:
        store.write(torch.cat(keys).cpu(), torch.cat(values).cpu(), namespace=namespace, metadata=facts)


def read(store: Store, namespace: str, layer: int, capacity: int) -> Bank | None:
    """The last `capacity` records of a layer; None if there are none."""
    ids = store.ids({"namespace": namespace, "layer": layer})[-capacity:]
    if not len(ids):
        return None
    heads = (store.get(ids[:1]).metadata[0] or {})["heads"]
    keys, values = (x.unflatten(1, (heads, -1)).unsqueeze(0) for x in store.gather(ids))
    return Bank(keys, values, torch.arange(len(ids)).unsqueeze(0))
