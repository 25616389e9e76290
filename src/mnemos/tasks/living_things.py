"""Eight living things and what is true of each: the domain of Rumelhart's semantic network.

Rumelhart & Todd 1993, "Learning and connectionist representations"; McClelland, McNaughton & O'Reilly 1995,
figures 8 and 9; its table is that of Rogers & McClelland 2004, "Semantic Cognition". A fact is an item and a
relation, as "robin can", and its attributes are all that complete it truly: grow, move, fly. The penguin of
McClelland et al. is a ninth item, of which two facts are told there: that it is a bird, and that it can swim.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

RELATIONS = ("isa", "is", "can", "has")
# What each item has in all four relations, in their order.
THINGS: dict[str, tuple[str, str, str, str]] = {
    "pine": ("living-thing plant tree pine", "living big green", "grow", "roots bark branches"),
    "oak": ("living-thing plant tree oak", "living big", "grow", "roots bark branches leaves"),
    "rose": ("living-thing plant flower rose", "living pretty red", "grow", "roots leaves petals"),
    "daisy": ("living-thing plant flower daisy", "living pretty yellow", "grow", "roots leaves petals"),
    "robin": ("living-thing animal bird robin", "living red", "grow move fly", "skin wings feathers"),
    "canary": (
        "living-thing animal bird canary",
        "living yellow",
        "grow move fly sing",
        "skin wings feathers",
    ),
    "sunfish": ("living-thing animal fish sunfish", "living yellow", "grow move swim", "skin scales gills"),
    "salmon": ("living-thing animal fish salmon", "living red", "grow move swim", "skin scales gills"),
    "penguin": ("living-thing animal bird", "living", "grow move swim", "skin wings feathers"),
}
ITEMS = tuple(THINGS)
PENGUIN = ITEMS.index("penguin")
ATTRIBUTES = tuple(
    dict.fromkeys(word for facts in THINGS.values() for fact in facts for word in fact.split())
)


class Facts(NamedTuple):
    """One for every item and relation, those of an item together."""

    inputs: Float[Tensor, "facts inputs"]  # which item and which relation, each as one of its units
    attributes: Float[Tensor, "facts attributes"]  # 1 where it is true, in the order of `ATTRIBUTES`
    items: Int[Tensor, " facts"]
    relations: Int[Tensor, " facts"]


def facts() -> Facts:
    """All facts, the penguin's included, which come last."""
    items = torch.arange(len(ITEMS)).repeat_interleave(len(RELATIONS))
    relations = torch.arange(len(RELATIONS)).repeat(len(ITEMS))
    inputs = torch.cat([torch.eye(len(ITEMS))[items], torch.eye(len(RELATIONS))[relations]], dim=1)
    attributes = torch.tensor(
        [
            [float(attribute in fact.split()) for attribute in ATTRIBUTES]
            for thing in THINGS.values()
            for fact in thing
        ]
    )
    return Facts(inputs, attributes, items, relations)
