"""An attachment as a folder: memory_config.json, memory.safetensors, store/."""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import mnemos.stores
from mnemos.models.description import build
from mnemos.models.folder import ModelError, load_folder, save_folder
from mnemos.models.hugging_face import records, surface
from mnemos.models.hugging_face.attention_memory import AttentionMemory
from mnemos.models.hugging_face.bank import Bank, Staged
from mnemos.stores.base import Store

if TYPE_CHECKING:
    from mnemos.models.hugging_face.attachment import Attachment

CONFIG, WEIGHTS = "memory_config.json", "memory.safetensors"
ROWS = "rows.safetensors"  # banks that are not shared: one for each row of a batch
STORE = "store"
INSIDE = "memory"  # the folder within that of the model


def save(attachment: "Attachment", folder: str | Path) -> None:
    """Writes what is learned and what was memorized; what a caller carries in a cache is the caller's."""
    attachment.commit()
    folder, decoder = Path(folder), attachment.decoder
    config = {
        "base_model_name_or_path": decoder.model.config._name_or_path,
        "namespace": attachment.namespace,
        **_sizes(attachment),
        "segments": attachment.segments,
        "memories": {str(layer): part.settings() for layer, part in attachment.parts.items()},
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in attachment.state_dict().items()}
    apart = {
        f"{layer}.{name}": tensor.detach().cpu().contiguous()
        for layer, held in attachment.banks.items()
        if not attachment.memories[layer].shared
        for name, tensor in held._asdict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    _save_store(attachment, folder / STORE)
    save_folder(folder, config, {WEIGHTS: save_tensors(weights), ROWS: save_tensors(apart)}, CONFIG)


def _save_store(attachment: "Attachment", place: Path) -> None:
    """Puts a store of all shared banks in place of the one that is there."""
    new = place.with_name(f"{STORE}.part")
    shutil.rmtree(new, ignore_errors=True)
    if attachment.store is None:
        with mnemos.stores.open(":memory:") as store:
            shared = {
                layer: Staged(held.keys, held.values, held.written >= 0)
                for layer, held in attachment.banks.items()
                if attachment.memories[layer].shared
            }
            records.write(store, attachment.namespace, shared, {})
            store.snapshot(new)
    elif place.resolve() == Path(getattr(attachment.store, "path", "")).resolve():
        return  # it is the store itself that lies there
    else:
        attachment.store.snapshot(new)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)


def load(kind: type["Attachment"], model: nn.Module, folder: str | Path, store: Store | None) -> "Attachment":
    """See `Attachment.from_pretrained`."""
    config, contents, _ = load_folder(folder, WEIGHTS, ROWS, config_name=CONFIG)
    try:
        memories = {int(layer): _memory(settings) for layer, settings in config["memories"].items()}
        attachment = kind(
            model, memories, segments=config["segments"], store=store, namespace=config["namespace"]
        )
    except KeyError as error:
        raise ModelError(f"{folder} cannot be opened: {error}") from error
    try:
        differences = [
            f"{name} was {config[name]}, is {size}"
            for name, size in _sizes(attachment).items()
            if config[name] != size
        ]
        if differences:
            raise ModelError(f"{folder} holds the memories of another model: {'; '.join(differences)}")
        attachment.load_state_dict(load_tensors(contents[WEIGHTS]))
        if store is None:
            with mnemos.stores.open(Path(folder) / STORE, read_only=True) as attachment.store:
                attachment.reload()
            attachment.store = None
        attachment.banks |= _banks(load_tensors(contents[ROWS]))
    except (ModelError, RuntimeError, SafetensorError) as error:
        attachment.detach()
        raise ModelError(f"{folder} cannot be opened: {error}") from error
    return attachment


def _sizes(attachment: "Attachment") -> dict[str, Any]:
    decoder = attachment.decoder
    return {
        "model_type": decoder.model.config.model_type,
        "layers": len(decoder.layers),
        "hidden_size": decoder.hidden_size,
        "query_heads": decoder.query_heads,
    }


def _memory(settings: dict[str, Any]) -> Any:
    if "attention" in settings:
        return AttentionMemory(**settings["attention"])
    return build(settings["residual"])


def _banks(tensors: dict[str, Tensor]) -> dict[int, Bank]:
    layers = {int(name.split(".")[0]) for name in tensors}
    return {layer: Bank(*(tensors[f"{layer}.{name}"] for name in Bank._fields)) for layer in layers}


# Beside the model's own files


def save_with_model(attachment: "Attachment") -> None:
    """Has the model's `save_pretrained`, which Trainer calls too, write the memories into a folder beside."""
    for owner in _owners(attachment):
        owner.save_pretrained = partial(_save_both, owner.save_pretrained, attachment)


def save_alone(attachment: "Attachment") -> None:
    """The model's `save_pretrained` as it was."""
    for owner in _owners(attachment):
        del owner.save_pretrained


def _owners(attachment: "Attachment") -> list[Any]:
    whole, inner = attachment.model, attachment.decoder.model
    return [inner] if whole is inner else [inner, whole]


def _save_both(
    own: Any, attachment: "Attachment", save_directory: str | Path, *args: Any, **kwargs: Any
) -> Any:
    model = attachment.decoder.model
    surface.allow_compiling(model, attachment.compiles)  # what the model is saved with is its own
    given_back = own(save_directory, *args, **kwargs)
    surface.refuse_compiling(model)
    if kwargs.get("is_main_process", True):
        attachment.save_pretrained(Path(save_directory) / INSIDE)
    return given_back


def refuse_losing(attachment: "Attachment", missing: list[str]) -> None:
    """Raises RuntimeError if a checkpoint of the model holds its weights and not those of its memories.

    With strict=False, as Trainer loads when it resumes, torch would leave the memories as they are, silently.
    """
    names = {id(parameter): name for name, parameter in attachment.decoder.model.named_parameters()}
    lost = sorted({names[id(parameter)] for parameter in attachment.parameters()} & set(missing))
    embedding = names[id(attachment.decoder.model.get_input_embeddings().weight)]
    if lost and embedding not in missing:
        raise RuntimeError(
            f"the checkpoint holds no weights of the memories ({', '.join(lost[:3])}...): detach them before "
            "loading, or load one that was saved with them"
        )
