"""A memory's state in the cache that a caller carries, at the layer after which the memory stands.

It goes wherever the layer's keys and values go: when beams are chosen, rows repeated, the cache begun anew.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from mnemos.tree import repeat_rows, select_rows


def length(cached: Any, layer: int) -> int:
    """Steps that a cache has seen at a layer."""
    return int(cached.get_seq_length(layer)) if cached is not None else 0


def of_layer(cached: Any, layer: int) -> Any:
    """The memory's state that a cache carries; None if both have seen nothing.

    Raises:
        ValueError: the cache has seen steps that the memory has not, or the other way round.
    """
    if cached is None:
        return None
    held = cached.layers[layer] if layer < len(cached.layers) else None
    state = getattr(held, "memory_state", None)
    if state is None and length(cached, layer):
        raise ValueError(
            f"the cache holds {length(cached, layer)} steps that the memory of layer {layer} has not seen: "
            "begin with an empty cache after attaching"
        )
    return state


def keep(cached: Any, layer: int, state: Any) -> None:
    """Puts the state that a pass left into a cache."""
    held = cached.layers[layer]
    if not hasattr(type(held), "memory_state"):
        # A new object with the same content: Python refuses to change the class of this one.
        kind: Any = type(held)
        stateful = _stateful(kind)
        cached.layers[layer] = stateful.__new__(stateful)
        cached.layers[layer].__dict__ = held.__dict__
    cached.layers[layer].memory_state = state


def change(cached: Any, layer: int, function: Callable[[Any], Any]) -> None:
    """Puts another state in the place of the one that a cache carries, if it carries one."""
    state = getattr(cached.layers[layer], "memory_state", None)
    if state is not None:
        cached.layers[layer].memory_state = function(state)


@cache
def _stateful(kind: Any) -> Any:
    """A kind of cache layer that carries a memory's state wherever its keys and values go."""

    def with_state(name: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
        own = getattr(kind, name)

        def both(self: Any, argument: Any) -> None:
            own(self, argument)
            if self.memory_state is not None:
                self.memory_state = function(self.memory_state, argument)

        return both

    def reset(self: Any) -> None:
        kind.reset(self)
        self.memory_state = None

    def crop(self: Any, tokens_to_remove: Any) -> None:
        if tokens_to_remove:
            raise NotImplementedError(
                "a memory cannot forget its last steps: decode without assistants, or begin with a new cache"
            )

    rows: dict[str, Callable[[Any, Any], Any]] = {
        "reorder_cache": select_rows,
        "batch_select_indices": select_rows,
        "batch_repeat_interleave": repeat_rows,
    }
    members: dict[str, Any] = {
        name: with_state(name, function) for name, function in rows.items() if hasattr(kind, name)
    }
    members |= {"reset": reset, "crop": crop, "memory_state": None}
    # `is_compileable` stays what it was: masks are made by it.
    members |= {"is_croppable": False, "_layer_type": None}
    return type(f"{kind.__name__}WithMemory", (kind,), members)
