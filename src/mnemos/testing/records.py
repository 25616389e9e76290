"""Comparing what stores hold, bit for bit."""

import torch
from torch import Tensor

from mnemos.stores.base import Records, Store


def contents(store: Store) -> Records:
    """Every record of a store, by ascending id."""
    return store.get(store.ids())


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bytes (so that NaN equals NaN, and 0 not -0)."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(_bytes(left), _bytes(right))


def differences(expected: Records, found: Records, usage: bool = True) -> list[str]:
    """What tells two sets of records apart, a sentence each; none if every bit is the same.

    Args:
        usage: whether to compare times and reads too. A crash may lose counts of reads.
    """
    if expected.ids.tolist() != found.ids.tolist():
        missing = sorted(set(expected.ids.tolist()) - set(found.ids.tolist()))
        strange = sorted(set(found.ids.tolist()) - set(expected.ids.tolist()))
        return [f"ids differ: {missing[:10]} are missing, {strange[:10]} should not be there"]
    faults = [
        f"{name} differ: expected {getattr(expected, name)}, found {getattr(found, name)}"
        for name in ("keys", "values")
        if len(expected.ids) and not same_bits(getattr(expected, name), getattr(found, name))
    ]
    faults += [
        f"{name} differ: expected {getattr(expected, name)}, found {getattr(found, name)}"
        for name in ("metadata", "namespaces")
        if getattr(expected, name) != getattr(found, name)
    ]
    fields = expected.usage._fields if usage else ("strength",)
    faults += [
        f"usage.{name} differs: expected {getattr(expected.usage, name)}, found {getattr(found.usage, name)}"
        for name in fields
        if not torch.equal(getattr(expected.usage, name), getattr(found.usage, name))
    ]
    return faults


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)
