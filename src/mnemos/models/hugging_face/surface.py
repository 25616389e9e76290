"""All that is imported of transformers: its models, attention functions, caches, and its Trainer.

What is used of it: decoder layers are `GradientCheckpointingLayer`s in one `ModuleList`; an attention module
chooses its function by its own `config` in `AttentionInterface`; a `Cache` is a list of `layers`. On the last
of these `layers` and `cache_state` build, which import nothing of it.
"""

import copy
import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

try:
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
    from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError as error:
    raise ImportError('attaching to a Hugging Face model needs: pip install "mnemos[hf]"') from error

from mnemos.models.hugging_face.attention_memory import READING, rotate_half, unrotated

ATTENTION = "mnemos"  # the name under which attention with memory is known to transformers


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


def check_positions(model: PreTrainedModel, end: int) -> None:
    """Raises ValueError where a text goes beyond the table of learned positions that a model has."""
    tables = [name for name, _ in model.named_modules() if name.endswith((".wpe", "embed_positions"))]
    if tables and end > model.config.max_position_embeddings:
        raise ValueError(f"the model knows {model.config.max_position_embeddings} positions, not {end}")


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


def is_static(cached: Any) -> bool:
    """Whether new keys lie at places of their own, and not at the end."""
    return cached is not None and any(isinstance(layer, StaticLayer) for layer in cached.layers)


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
