"""A memory as JSON: its class and its arguments, from which it is built again with new weights."""

import inspect
import json
from typing import Any

from torch import nn

import mnemos.memories
from mnemos.memories.base import Memory
from mnemos.memories.combination import HeadGate, JointSoftmax
from mnemos.memories.compression import Convolution, DilatedConvolution, MaxPool, MeanPool, MostUsed
from mnemos.memories.product_key import SiluGate
from mnemos.models.mixer import Mixer
from mnemos.snapshot import fingerprint

# What memories are made of, beside the memories of `mnemos.memories`.
PARTS: dict[str, type[nn.Module]] = {
    part.__name__: part
    for part in (
        Mixer,
        *(MeanPool, MaxPool, MostUsed, Convolution, DilatedConvolution),
        *(HeadGate, JointSoftmax),
        SiluGate,
    )
}


def describe(part: nn.Module) -> dict[str, Any]:
    """The class of a memory, or of a part of one, and its arguments, among which may be further parts.

    What JSON cannot hold is left out where the constructor would come to the same without being given it.

    Raises:
        TypeError: an argument that can neither be written nor left out, such as a part that is no class of
            this library, or an open store.
    """
    arguments, left_out = {}, []
    for parameter in inspect.signature(type(part)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):  # a part without arguments
            continue
        value = getattr(part, parameter.name)
        if isinstance(value, nn.Module) and class_called(type(value).__name__) is type(value):
            arguments[parameter.name] = describe(value)
        elif _is_plain(value):
            arguments[parameter.name] = value
        elif value is not parameter.default:
            left_out.append(parameter)
    described = {"class": type(part).__name__, "arguments": arguments}
    if left_out and not _complete(described, part, left_out):
        names = ", ".join(parameter.name for parameter in left_out)
        raise TypeError(f"a {type(part).__name__} with its own {names} cannot be saved: JSON cannot hold it")
    return described


def build(described: dict[str, Any]) -> Any:
    """What was described, with new weights.

    Raises:
        KeyError: a class that is not known.
    """
    found = class_called(described["class"])
    if found is None:
        raise KeyError(f"this version of mnemos has no memory called {described['class']}")
    return found(**{name: _built(value) for name, value in described["arguments"].items()})


def class_called(name: str) -> type[nn.Module] | None:
    """The memory, or part of one, of this name; None if there is none."""
    if name in PARTS:
        return PARTS[name]
    found = getattr(mnemos.memories, name, None)
    return found if isinstance(found, type) and issubclass(found, Memory) else None


def _built(value: Any) -> Any:
    if isinstance(value, dict):
        return build(value)
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _complete(described: dict[str, Any], part: nn.Module, left_out: list[inspect.Parameter]) -> bool:
    """Whether a part is the same without the arguments that were left out."""
    if not isinstance(part, Memory) or any(x.default is x.empty for x in left_out):
        return False
    return fingerprint(build(described)) == fingerprint(part)
