"""A memory for a Hugging Face model: attached, used, saved, and taken off again."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mnemos.memories.base import Memory, check_sizes
from mnemos.models.hugging_face import bank, cache_state, layers, records, saving, surface
from mnemos.models.hugging_face.attention_memory import AttentionMemory, AttentionPart
from mnemos.models.hugging_face.bank import Bank
from mnemos.models.hugging_face.part import Current, Part, Step, real_steps
from mnemos.models.hugging_face.residual_memory import ResidualPart
from mnemos.models.hugging_face.segments import Stream
from mnemos.stores.base import DEFAULT_NAMESPACE, Store
from mnemos.tree import to

HANDLE = "mnemos_attachment"  # the attribute of a model that has memories


def attach(
    model: nn.Module,
    memories: Mapping[int, AttentionMemory | Memory] | None = None,
    *,
    segments: int | None = None,
    store: Store | None = None,
    namespace: str = DEFAULT_NAMESPACE,
) -> "Attachment":
    """Gives a Hugging Face causal language model memories, without a change to its code or its weights.

    Until something is memorized or trained, the model's outputs stay the same, bit for bit. The memories'
    parameters become the model's: train them, alone or with others, by `attachment.parameters()`. `generate`
    and `Trainer` work as before; `model.save_pretrained(folder)` also writes `folder/memory`.

    Args:
        model: any model whose decoder layers and attention functions are transformers' own kind; one that
            peft has wrapped, too.
        memories: by number of the decoder layer, from 0. `AttentionMemory` is attention to past keys and
            values; a `Memory` from the model's hidden size to its hidden size is added after the layer.
        segments: how many of the last steps `new_cache` and `carry` keep the keys and values of, in every
            layer: the recurrence of Transformer-XL. None keeps none, only the memories' states.
        store: where what is memorized is kept on disk, and what attention memories begin with. The caller
            opens and closes it.
        namespace: of the records in the store.

    Raises:
        TypeError, NotImplementedError: a model, or a way of turning keys, that is not known here.
        ValueError: a model that has memories already, a layer that is not there, a memory of another size;
            nothing is changed.
    """
    return Attachment(model, memories, segments=segments, store=store, namespace=namespace)


class Attachment:
    """The memories of one model, from `attach` to `detach`. The arguments are those of `attach`."""

    def __init__(
        self,
        model: nn.Module,
        memories: Mapping[int, AttentionMemory | Memory] | None = None,
        *,
        segments: int | None = None,
        store: Store | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> None:
        self.decoder = surface.decoder(model)
        if not memories and segments is None:
            raise ValueError("nothing to attach: neither memories nor segments were given")
        if segments is not None:
            check_sizes(segments=segments)
        self.model, self.memories, self.segments = model, dict(memories or {}), segments
        self.store, self.namespace = store, namespace
        if hasattr(self.decoder.model, HANDLE):
            raise ValueError("the model has memories already: detach them first, or attach all at once")
        self.parts = {layer: self._part(layer, memory) for layer, memory in sorted(self.memories.items())}
        self.banks: dict[int, Bank] = {}
        self._current, self._memorizing, self._reading = Current(), False, True
        self._metadata: dict[str, Any] = {}
        self._streams: dict[bool, Stream] | None = None  # while training, while not; None outside of `carry`
        self.reload()
        self._install()

    def _part(self, layer: int, memory: AttentionMemory | Memory) -> Part:
        if not 0 <= layer < len(self.decoder.layers):
            raise ValueError(
                f"memories names layer {layer}; the model has {len(self.decoder.layers)}, from 0"
            )
        if isinstance(memory, Memory):
            return ResidualPart(layer, memory, self.decoder.hidden_size)
        if self.store is not None and not memory.shared:
            raise ValueError(
                f"the bank of layer {layer} is not shared: a store keeps no rows of a batch apart"
            )
        return AttentionPart(layer, memory, self.decoder.query_heads)

    def _install(self) -> None:
        self._given = list(inspect.signature(self.decoder.stack.forward).parameters)
        routed = []
        try:
            for layer, part in self.parts.items():
                if isinstance(part, AttentionPart):
                    surface.route(surface.attention_of(self.decoder.layers[layer]))
                    routed.append(layer)
        except Exception:
            for layer in routed:
                surface.unroute(surface.attention_of(self.decoder.layers[layer]))
            raise
        for layer, part in self.parts.items():
            part.current = self._current
            layers.install(self.decoder.layers[layer], part)
        self._hook = self.decoder.stack.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._loaded = self.decoder.model.register_load_state_dict_post_hook(self._after_loading)
        # What changes from pass to pass is not for a graph that `generate` captures once for static caches.
        self.compiles = surface.refuse_compiling(self.decoder.model)
        setattr(self.decoder.model, HANDLE, self)
        saving.save_with_model(self)

    def detach(self) -> None:
        """Takes the memories off: the model is exactly what it was. What was not saved or stored is gone."""
        self._check_attached()
        self._hook.remove()
        self._loaded.remove()
        for layer, part in self.parts.items():
            layers.remove(self.decoder.layers[layer])
            if isinstance(part, AttentionPart):
                surface.unroute(surface.attention_of(self.decoder.layers[layer]))
        saving.save_alone(self)
        surface.allow_compiling(self.decoder.model, self.compiles)
        delattr(self.decoder.model, HANDLE)

    @property
    def attached(self) -> bool:
        """Whether the model still has these memories."""
        return getattr(self.decoder.model, HANDLE, None) is self

    def _check_attached(self) -> None:
        if not self.attached:
            raise ValueError("these memories are not attached to the model")

    def _begin(self, stack: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before every forward pass of the model: what the layers' memories are to know of it."""
        given = dict(zip(self._given, args, strict=False)) | kwargs
        reset = given.pop("memory_reset", None)
        tokens = given.get("input_ids") if given.get("inputs_embeds") is None else given["inputs_embeds"]
        if tokens is None:
            raise ValueError("neither input_ids nor inputs_embeds were given")
        batch, time = tokens.shape[:2]
        if self._streams is not None:
            given = self._stream(stack.training, given).before(given, batch, time, reset, self.parts)
        elif reset is not None:
            raise ValueError("memory_reset is for texts that go on from pass to pass: use it inside carry()")
        cached = given.get("past_key_values")
        past = cache_state.length(cached, 0)
        surface.check_positions(self.decoder.model, past + time)
        carried = self._streams is not None or (self._carries_state() and (past or given.get("use_cache")))
        if carried and stack.training and layers.checkpoints(self.decoder.layers):
            raise ValueError(
                "gradient checkpointing leaves the cache away, and what memories carry in it would be lost: "
                "turn it off, or train without carry, past_key_values and use_cache"
            )
        if self._memorizing and surface.is_static(cached):
            raise ValueError("memorize: new keys cannot be told from old ones in a static cache")
        self.commit()
        real = real_steps(given.get("attention_mask"), batch, time, past)
        self._current.step = Step(real, dict(self.banks) if self._reading else {}, self._memorizing)
        return (), given

    def _stream(self, training: bool, given: Mapping[str, Any]) -> Stream:
        assert self._streams is not None
        if given.get("past_key_values") is not None:
            raise ValueError(
                "carry: a cache was passed, and what is carried would be lost: leave it away, or pass "
                "`new_cache()` from pass to pass outside of carry()"
            )
        if training:  # texts that are read in between, as Trainer evaluates, begin anew each time
            self._streams.pop(False, None)
        return self._streams.setdefault(training, Stream(self.new_cache()))

    def _after_loading(self, model: nn.Module, keys: Any) -> None:
        saving.refuse_losing(self, keys.missing_keys)

    def _carries_state(self) -> bool:
        return any(part.carries_state for part in self.parts.values())

    # What goes from segment to segment

    def new_cache(self) -> Any:
        """A cache for texts that come in segments: the `past_key_values` of the model or of `generate`.

        It keeps the last `segments` steps, with the states of memories after layers. As long as no more were
        seen, segments give what one pass gives.
        """
        return surface.segment_cache(len(self.decoder.layers), self.segments or 0)

    @contextmanager
    def carry(self) -> Iterator[None]:
        """Within it, row b of every pass goes on where row b of the last one ended, as for `Trainer`.

        Gradients end where a segment begins. A row that begins another text is told by an argument of the
        forward pass, memory_reset: booleans of shape (batch,). What is read in evaluation mode is carried by
        itself, and begins anew after each training pass.
        """
        self._check_attached()
        if self.segments is None and not self._carries_state():
            raise ValueError("carry: there are neither segments nor memories with a state")
        self._streams = {}
        try:
            yield
        finally:
            self._streams = None

    # What attention memories hold

    @contextmanager
    def memorize(self, metadata: Mapping[str, Any] | None = None, *, read: bool = True) -> Iterator[None]:
        """Within it, attention memories write the keys and values of every pass: read a text, or train.

        What a pass writes is committed when the next one begins, and at the end; after an error the last pass
        is not.

        Args:
            metadata: kept with every record in the store, such as {"source": "diary.txt"}.
            read: whether a pass reads what was written before it, as in training. What is read colours what
                higher layers then write: with False each text leaves the records that it would leave alone,
                and erasing them erases it.
        """
        self._check_attached()
        if not any(isinstance(part, AttentionPart) for part in self.parts.values()):
            raise ValueError(
                "memorize: no layer has an AttentionMemory; the others carry a state in the cache"
            )
        self.commit()
        self._memorizing, self._reading, self._metadata = True, read, dict(metadata or {})
        try:
            yield
            self.commit()
        finally:
            self._memorizing, self._reading, self._metadata = False, True, {}
            self._current.step = Step()

    def commit(self) -> None:
        """Writes what the last pass staged into the banks, and durably into the store if there is one."""
        staged, self._current.step.staged = self._current.step.staged, {}
        if not staged:
            return
        written: dict[int, Bank] = {}
        for layer, new in staged.items():
            settings = self.memories[layer]
            assert isinstance(settings, AttentionMemory)
            rows = bank.flat(new) if settings.shared else new
            written[layer] = bank.write(self.banks.get(layer), rows, settings.capacity)
            staged[layer] = rows
        if self.store is not None:
            records.write(self.store, self.namespace, staged, self._metadata)
        self.banks |= written

    def reload(self) -> None:
        """Fills the banks from the store anew: after it was changed by others, or records were deleted."""
        if self.store is None:
            return
        for layer, part in self.parts.items():
            if isinstance(part, AttentionPart):
                self.banks.pop(layer, None)
                held = records.read(self.store, self.namespace, layer, part.memory.capacity)
                if held is not None:
                    self.banks[layer] = to(held, device=part.gate.device)

    def clear(self) -> None:
        """Empties the banks, as for another document. What a store holds stays; `reload` brings it back."""
        self.banks.clear()
        self._current.step = Step()

    # What is learned

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the memories learn; the model's own parameters are not among them."""
        for part in self.parts.values():
            yield from part.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The memories' weights, by layer and name."""
        return {
            f"{layer}.{name}": tensor
            for layer, part in self.parts.items()
            for name, tensor in part.state_dict().items()
        }

    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Takes what `state_dict` gave. RuntimeError for missing or unknown weights, or another shape."""
        nn.ModuleDict({str(layer): part for layer, part in self.parts.items()}).load_state_dict(weights)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes memory_config.json, memory.safetensors and store/: `from_pretrained` reads them."""
        saving.save(self, folder)

    @classmethod
    def from_pretrained(
        cls, model: nn.Module, folder: str | Path, *, store: Store | None = None
    ) -> "Attachment":
        """Attaches to a model the memories that `save_pretrained` wrote.

        Args:
            model: of the same sizes as the one that they were saved from.
            store: to go on with; None reads the folder's records and leaves the folder as it is.

        Raises:
            mnemos.models.ModelError: a folder that is missing, damaged, too new, or of another model.
        """
        return saving.load(cls, model, folder, store)

    # Whether it works

    def report(self) -> dict[int, dict[str, float]]:
        """By layer, figures since `forget_reads`; the `report` of each kind of part says what they mean."""
        return {layer: part.report() for layer, part in self.parts.items()}

    def forget_reads(self) -> None:
        """Begins the figures of `report` anew."""
        for part in self.parts.values():
            part.forget_reads()
