"""All contact with transformers: where its layers, attention functions, masks and caches are touched.

What is used of it: decoder layers are `GradientCheckpointingLayer`s in one `ModuleList`; an attention module
chooses its function by its own `config` in `AttentionInterface`; a `Cache` is a list of `layers`.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

try:
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
    from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError as error:
    raise ImportError('attaching to a Hugging Face model needs: pip install "mnemos[hf]"') from error

from mnemos.models.hugging_face.attention_memory import READING, rotate_half, unrotated
from mnemos.models.hugging_face.part import Part
from mnemos.tree import repeat_rows, select_rows

ATTENTION = "mnemos"  # the name under which attention with memory is known to transformers
CACHES = ("past_key_values", "layer_past", "past_key_value")  # what layers call the cache


class Decoder(NamedTuple):
    """Where the layers of a model are."""

    model: PreTrainedModel  # what was loaded: what saves itself
    stack: nn.Module  # whose forward pass is given tokens, mask and cache, and runs the layers
    layers: nn.ModuleList
    hidden_size: int
    query_heads: int


def decoder(model: nn.Module) -> Decoder:
    """Raises TypeError for what is not a Hugging Face model with one stack of decoder layers."""
    wrapped: Any = model
    inner = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped  # what peft wrapped
    if not isinstance(inner, PreTrainedModel):
        raise TypeError(f"model must be a Hugging Face model, not {type(model).__name__}")
    config = inner.config.get_text_config()
    found = [
        (stack, child)
        for stack in inner.modules()
        for child in stack.children()
        if isinstance(child, nn.ModuleList)
        and len(child) == config.num_hidden_layers
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in child)
    ]
    if len(found) != 1:
        raise TypeError(
            f"{type(inner).__name__} has {len(found)} stacks of {config.num_hidden_layers} decoder layers, "
            "where one is expected"
        )
    return Decoder(inner, *found[0], config.hidden_size, config.num_attention_heads)


def random_model(model_type: str, **sizes: Any) -> Any:
    """A causal language model of an architecture that transformers knows, with random weights."""
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))


def load_model(folder: Any) -> Any:
    """The causal language model in a folder, without the memories beside it, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def attention_of(layer: nn.Module) -> nn.Module:
    """The layer's attention: the child that has a config of its own and says whether it is causal."""
    found = [
        child
        for name, child in layer.named_children()
        if hasattr(child, "is_causal") and hasattr(child, "config") and "cross" not in name
    ]
    if len(found) != 1:
        raise TypeError(f"{type(layer).__name__} has {len(found)} attention modules, where one is expected")
    return found[0]


def real_steps(attention_mask: Any, batch: int, time: int, past: int) -> Bool[Tensor, "batch time"] | None:
    """Which steps of a pass are not padding, from whatever the model was given; None if all are real.

    For compiled caches, `generate` prepares masks of (batch, 1, time, past) for each kind of layer, booleans
    or numbers to add. Of those the diagonal is read: a step sees itself unless it is padding.
    """
    if isinstance(attention_mask, Mapping):
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values()), None))
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        raise TypeError(f"attention_mask of this kind hides what is padding: {type(attention_mask).__name__}")
    if attention_mask.dim() == 2:
        return attention_mask[:, -time:].bool()
    if past + time > attention_mask.shape[-1]:  # a window that has moved on: only generated steps come now
        return None
    diagonal = attention_mask[:, 0].diagonal(past, dim1=1, dim2=2)
    return (diagonal if diagonal.dtype == torch.bool else diagonal >= 0).expand(batch, -1)


def check_positions(model: PreTrainedModel, end: int) -> None:
    """Raises ValueError where a text goes beyond the table of learned positions that a model has."""
    tables = [name for name, _ in model.named_modules() if name.endswith((".wpe", "embed_positions"))]
    if tables and end > model.config.max_position_embeddings:
        raise ValueError(f"the model knows {model.config.max_position_embeddings} positions, not {end}")


# Layers


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
            state = _state(cached, part.layer) if part.carries_state else None
            part.before(memory_step, attention_of(self), given.get("position_embeddings"))
            given_back = super().forward(*args, **kwargs)
            hidden, *rest = given_back if isinstance(given_back, tuple) else (given_back,)
            hidden, state = part.after(memory_step, hidden, state)
            if cached is not None and part.carries_state:
                _keep_state(cached, part.layer, state)
            return (hidden, *rest) if isinstance(given_back, tuple) else hidden

    # Its own name would hide the layer from what transformers, accelerate and FSDP look for by name.
    WithMemory.__name__, WithMemory.__qualname__ = kind.__name__, kind.__qualname__
    return WithMemory


def checkpoints(layers: nn.ModuleList) -> bool:
    """Whether gradient checkpointing is on."""
    return any(getattr(layer, "gradient_checkpointing", False) for layer in layers)


# Attention


def route(attention: Any) -> None:
    """Has an attention module ask the memory beside its own implementation. Masks are made as before."""
    if getattr(attention, "reorder_and_upcast_attn", False):
        raise NotImplementedError("reorder_and_upcast_attn goes around the attention functions: turn it off")
    _check_rotation(attention)
    config = copy.copy(attention.config)
    config._attn_implementation_internal = ATTENTION
    attention.__dict__["config_without_memory"] = attention.config
    attention.config = config


def unroute(attention: Any) -> None:
    """The module as it was before `route`."""
    attention.config = attention.__dict__.pop("config_without_memory")
    attention.__dict__.pop(READING, None)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    """What attention gives by the model's own implementation, and then with memory."""
    name = module.config_without_memory._attn_implementation
    own = ALL_ATTENTION_FUNCTIONS.get(name) or sys.modules[_origin(module)].eager_attention_forward
    outputs, weights = own(module, query, key, value, attention_mask, **kwargs)
    reading = module.__dict__.pop(READING)
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    return reading.part.mix(outputs, query, key, value, scaling, reading), weights


AttentionInterface.register(ATTENTION, _attend)


def _origin(module: nn.Module) -> str:
    """The file of transformers that a module's class comes from."""
    return type(module).__module__


def _check_rotation(attention: Any) -> None:
    """Raises NotImplementedError for positions that `unrotated` would not take off."""
    rotate = getattr(sys.modules[_origin(attention)], "apply_rotary_pos_emb", None)
    if rotate is None:
        return
    size = getattr(attention, "head_dim", None) or attention.head_size
    probe, angles = torch.randn(1, 2, 3, size), torch.randn(1, 3, size // 2).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    turned = rotate(probe, probe, cos, sin)[1]
    if not torch.allclose(turned, probe * cos + rotate_half(probe) * sin, atol=1e-4):
        raise NotImplementedError(
            f"{type(attention).__name__} turns its keys in a way that is not known here"
        )
    assert torch.allclose(unrotated(turned, (cos, sin)), probe, atol=1e-4)


# Caches


def refuse_compiling(model: PreTrainedModel) -> Any:
    """Has `generate` run the model as it is; returns what `allow_compiling` takes back."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return None
    before, settings.disable_compile = settings.disable_compile, True
    return before


def allow_compiling(model: PreTrainedModel, before: Any) -> None:
    """The model's setting as it was."""
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.disable_compile = before


def length(cached: Any, layer: int) -> int:
    """Steps that a cache has seen at a layer."""
    return int(cached.get_seq_length(layer)) if cached is not None else 0


def is_static(cached: Any) -> bool:
    """Whether new keys lie at places of their own, and not at the end."""
    return cached is not None and any(isinstance(layer, StaticLayer) for layer in cached.layers)


def _state(cached: Any, layer: int) -> Any:
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


def _keep_state(cached: Any, layer: int, state: Any) -> None:
    held = cached.layers[layer]
    if not hasattr(type(held), "memory_state"):
        # A new object with the same content: Python refuses to change the class of this one.
        kind: Any = type(held)
        stateful = _stateful(kind)
        cached.layers[layer] = stateful.__new__(stateful)
        cached.layers[layer].__dict__ = held.__dict__
    cached.layers[layer].memory_state = state


@cache
def _stateful(kind: Any) -> Any:
    """A kind of cache layer that carries a memory's state wherever its keys and values go."""

    def of_state(name: str, change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
        own = getattr(kind, name)

        def both(self: Any, argument: Any) -> None:
            own(self, argument)
            if self.memory_state is not None:
                self.memory_state = change(self.memory_state, argument)

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
        name: of_state(name, change) for name, change in rows.items() if hasattr(kind, name)
    }
    members |= {"reset": reset, "crop": crop, "memory_state": None}
    # `is_compileable` stays what it was: masks are made by it.
    members |= {"is_croppable": False, "_layer_type": None}
    return type(f"{kind.__name__}WithMemory", (kind,), members)


class SegmentLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that keeps the last `bound` steps, without their gradients (Dai et al. 2019).

    Steps keep the positions that they had; where none are kept, each pass begins at position 0.
    """

    is_croppable = False

    def __init__(self, bound: int) -> None:
        super().__init__()
        self.keys: Tensor
        self.values: Tensor
        self.bound, self.seen = bound, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        whole = tuple(
            torch.cat([old, new], dim=-2) if old.numel() else new
            for old, new in ((self.keys, key_states), (self.values, value_states))
        )
        self.seen += key_states.shape[-2]
        first = max(0, whole[0].shape[-2] - self.bound)
        self.keys, self.values = (x[:, :, first:].detach() for x in whole)
        return whole[0], whole[1]

    def get_seq_length(self) -> int:
        return self.seen if self.bound else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        kept = self.kept()
        return kept + query_length, self.get_seq_length() - kept

    def kept(self) -> int:
        """Steps whose keys are there."""
        return self.keys.shape[-2] if self.is_initialized and self.keys.numel() else 0

    def reset(self) -> None:
        super().reset()
        self.seen = 0

    def crop(self, tokens_to_remove: Any) -> None:
        if tokens_to_remove:
            raise NotImplementedError(
                "what has left the segments before cannot come back: begin with a new cache"
            )


def segment_cache(layers: int, bound: int) -> Any:
    """An empty cache that keeps the last `bound` steps in every layer."""
    return Cache(layers=[SegmentLayer(bound) for _ in range(layers)])


def kept(cached: Any) -> int:
    """Steps whose keys a segment cache still has."""
    return int(cached.layers[0].kept())


def bound(cached: Any) -> int:
    """How many steps a segment cache keeps."""
    return int(cached.layers[0].bound)


def change_state(cached: Any, layer: int, change: Callable[[Any], Any]) -> None:
    """Puts another state in the place of the one that a cache carries, if it carries one."""
    state = getattr(cached.layers[layer], "memory_state", None)
    if state is not None:
        cached.layers[layer].memory_state = change(state)


# Training


def train(model: nn.Module, examples: list[Any], folder: Any, steps: int = 3) -> None:
    """A few steps of transformers' own Trainer as it comes; the model is saved to the folder."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        learning_rate=0.01,
        per_device_train_batch_size=2,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=examples)
    trainer.train()
    trainer.save_model(str(folder))
