"""A decoder layer with a memory in it: what `attach` makes of the model's layers, and `detach` unmakes."""

import inspect
from functools import cache
from typing import Any

from torch import nn

from mnemos.models.hugging_face import cache_state
from mnemos.models.hugging_face.part import Part
from mnemos.models.hugging_face.surface import attention_of

CACHES = ("past_key_values", "layer_past", "past_key_value")  # what layers call the cache


def install(layer: nn.Module, part: Part) -> None:
    """Hangs a memory into a decoder layer, by class, as FSDP does: names and weights of the layer stay."""
    if "forward" in layer.__dict__:
        raise TypeError(
            "the layer's forward has been replaced, as accelerate does for device maps: it would never ask a "
            "memory; attach to a model on one device"
        )
    weight = next(layer.parameters())
    layer.memory = part.to(weight.device)
    kind: Any = type(layer)
    layer.__class__ = _with_memory(kind)


def remove(layer: nn.Module) -> None:
    """Takes the memory out: the layer is what it was."""
    layer.__class__ = type(layer).__mro__[1]
    del layer.memory


@cache
def _with_memory(kind: Any) -> Any:
    names = list(inspect.signature(kind.forward).parameters)[1:]

    class WithMemory(kind):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            # As an argument the step comes back when checkpointing runs the layer once more.
            kwargs.setdefault("memory_step", self.memory.current.step)
            return super().__call__(*args, **kwargs)

        def forward(self, *args: Any, memory_step: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | kwargs
            part = self.memory
            cached = next((given[name] for name in CACHES if given.get(name) is not None), None)
            state = cache_state.of_layer(cached, part.layer) if part.carries_state else None
            part.before(memory_step, attention_of(self), given.get("position_embeddings"))
            given_back = super().forward(*args, **kwargs)
            hidden, *rest = given_back if isinstance(given_back, tuple) else (given_back,)
            hidden, state = part.after(memory_step, hidden, state)
            if cached is not None and part.carries_state:
                cache_state.keep(cached, part.layer, state)
            return (hidden, *rest) if isinstance(given_back, tuple) else hidden

    # Its own name would hide the layer from what transformers, accelerate and FSDP look for by name.
    WithMemory.__name__, WithMemory.__qualname__ = kind.__name__, kind.__qualname__
    return WithMemory


def checkpoints(layers: nn.ModuleList) -> bool:
    """Whether gradient checkpointing is on."""
    return any(getattr(layer, "gradient_checkpointing", False) for layer in layers)
