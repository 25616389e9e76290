"""A language model as a folder: config.json, model.safetensors and tokenizer.json."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save

import mnemos.memories
from mnemos.memories.base import Memory
from mnemos.models.transformer import RotaryAttention, Transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1


class ModelError(Exception):
    """A model's folder is missing, damaged or too new; the message says which."""


class LanguageModel(NamedTuple):
    """A model with the tokenizer that it was trained for."""

    model: Transformer
    tokenizer: "Tokenizer"
    fingerprint: str  # SHA-256 over configuration, weights and tokenizer: whose keys a store holds


def language_model(model: Transformer, tokenizer: "Tokenizer") -> LanguageModel:
    """Puts the two together and takes their fingerprint, which is of the weights as they are now."""
    if model.vocabulary_size != tokenizer.get_vocab_size() + 1:
        raise ValueError(
            f"model has {model.vocabulary_size} tokens, where the tokenizer's "
            f"{tokenizer.get_vocab_size()} and the start of a document are expected"
        )
    return LanguageModel(model, tokenizer, _fingerprint(*_contents(model, tokenizer)))


def save_model(folder: str | Path, model: Transformer, tokenizer: "Tokenizer") -> LanguageModel:
    """Writes a model to a folder, over the one that is there.

    Each file is replaced at once and config.json last, with the fingerprint of all three: if the
    machine stops in between, `load_model` refuses the folder, and never returns a wrong model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = language_model(model, tokenizer)
    config, weights, words = _contents(model, tokenizer)
    header = {"format": FORMAT, "fingerprint": whole.fingerprint, "model": config}
    _replace(folder / "model.safetensors", weights)
    _replace(folder / "tokenizer.json", words.encode())
    _replace(folder / "config.json", (json.dumps(header, indent=2) + "\n").encode())
    return whole


def load_model(folder: str | Path) -> LanguageModel:
    """Opens what `save_model` wrote; the model is in evaluation mode.

    Raises:
        ModelError: no model in the folder, a file that is missing, truncated or altered, or a format
            newer than this version of mnemos knows.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError('a language model needs: pip install "mnemos[text]"') from error
    folder = Path(folder)
    config, weights, words = (
        _content(folder, name) for name in ("config.json", "model.safetensors", "tokenizer.json")
    )
    try:
        header = json.loads(config)
        written, model_config, fingerprint = header["format"], header["model"], header["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{folder}/config.json is damaged: it is not a model's configuration") from None
    if written > FORMAT:
        raise ModelError(f"{folder} has format {written}, newer than {FORMAT}: update mnemos to open it")
    if _fingerprint(model_config, weights, words.decode(errors="replace")) != fingerprint:
        raise ModelError(f"{folder} is damaged: a file was truncated, altered, or taken from another model")
    try:
        model = _build(model_config)
        model.load_state_dict(load(weights))
        return LanguageModel(model.eval(), Tokenizer.from_str(words.decode()), fingerprint)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} cannot be opened: {error}") from error


def _contents(model: Transformer, tokenizer: "Tokenizer") -> tuple[dict[str, Any], bytes, str]:
    memories = [
        {"class": type(memory).__name__, "arguments": memory.configuration()} for memory in model.memories
    ]
    config = {
        "vocabulary_size": model.vocabulary_size,
        "feed_forward": model.feed_forward,
        "context": model.context,
        "memories": memories,
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return config, save(weights), tokenizer.to_str()


def _build(config: dict[str, Any]) -> Transformer:
    memories = [_memory_class(layer["class"])(**layer["arguments"]) for layer in config["memories"]]
    return Transformer(config["vocabulary_size"], memories, config["feed_forward"], config["context"])


def _memory_class(name: str) -> type[Memory]:
    found = RotaryAttention if name == "RotaryAttention" else getattr(mnemos.memories, name, None)
    if not (isinstance(found, type) and issubclass(found, Memory)):
        raise KeyError(f"this version of mnemos has no memory called {name}")
    return found


def _fingerprint(config: dict[str, Any], weights: bytes, words: str) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for part in (weights, words.encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder} holds no model: {name} is missing") from None


def _replace(file: Path, content: bytes) -> None:
    """Writes a file so that it is there as a whole, and durably, or as it was before."""
    draft = file.with_name(file.name + ".part")
    with open(draft, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
