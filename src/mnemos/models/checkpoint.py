"""A language model as a folder: config.json, model.safetensors and tokenizer.json."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

import mnemos.memories
from mnemos.memories.base import Memory
from mnemos.memories.compression import Convolution, DilatedConvolution, MaxPool, MeanPool, MostUsed
from mnemos.memories.memorizing import HeadGate, JointSoftmax
from mnemos.models.folder import ModelError, fingerprint, load_folder, save_folder
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What stands in a model beside the memories of `mnemos.memories`.
PARTS: dict[str, type[nn.Module]] = {
    part.__name__: part
    for part in (
        Mixer,
        *(MeanPool, MaxPool, MostUsed, Convolution, DilatedConvolution),
        *(HeadGate, JointSoftmax),
    )
}
WEIGHTS, WORDS = "model.safetensors", "tokenizer.json"


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
    return LanguageModel(model, tokenizer, fingerprint(*_contents(model, tokenizer)))


def save_model(folder: str | Path, model: Transformer, tokenizer: "Tokenizer") -> LanguageModel:
    """Writes a model to a folder, over the one that is there; see `models.folder.save_folder`."""
    whole = language_model(model, tokenizer)
    save_folder(folder, *_contents(model, tokenizer))
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
    config, contents, found = load_folder(folder, WEIGHTS, WORDS)
    try:
        model = _build(config)
        model.load_state_dict(load(contents[WEIGHTS]))
        return LanguageModel(model.eval(), Tokenizer.from_str(contents[WORDS].decode()), found)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} cannot be opened: {error}") from error


def _contents(model: Transformer, tokenizer: "Tokenizer") -> tuple[dict[str, Any], dict[str, bytes]]:
    config = {
        "vocabulary_size": model.vocabulary_size,
        "feed_forward": model.feed_forward,
        "context": model.context,
        "memories": [_described(memory) for memory in model.memories],
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return config, {WEIGHTS: save(weights), WORDS: tokenizer.to_str().encode()}


def _build(config: dict[str, Any]) -> Transformer:
    memories = [_built(described) for described in config["memories"]]
    return Transformer(config["vocabulary_size"], memories, config["feed_forward"], config["context"])


def _described(part: nn.Module) -> dict[str, Any]:
    """The class of a memory, or of a part of one, and its arguments, among which may be further parts.

    Functions that are the defaults are left out; others cannot be written to a configuration.
    """
    arguments = {}
    for parameter in inspect.signature(type(part)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):  # a part without arguments
            continue
        value = getattr(part, parameter.name)
        if isinstance(value, nn.Module) and _class_called(type(value).__name__) is type(value):
            arguments[parameter.name] = _described(value)
        elif not callable(value):
            arguments[parameter.name] = value
        elif value is not parameter.default:
            owner = type(part).__name__
            raise TypeError(f"a model whose {owner} has {parameter.name} of its own cannot be saved")
    return {"class": type(part).__name__, "arguments": arguments}


def _built(described: dict[str, Any]) -> Any:
    name = described["class"]
    found = _class_called(name)
    if found is None:
        raise KeyError(f"this version of mnemos has no memory called {name}")
    arguments = described["arguments"]
    for name, value in arguments.items():
        if isinstance(value, dict):
            arguments[name] = _built(value)
        elif isinstance(value, list):  # JSON knows no tuples
            arguments[name] = tuple(value)
    return found(**arguments)


def _class_called(name: str) -> type[nn.Module] | None:
    if name in PARTS:
        return PARTS[name]
    found = getattr(mnemos.memories, name, None)
    return found if isinstance(found, type) and issubclass(found, Memory) else None
