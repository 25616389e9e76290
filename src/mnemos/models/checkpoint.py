"""A language model as a folder: config.json, model.safetensors and tokenizer.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save

from mnemos.models.description import build, describe
from mnemos.models.folder import ModelError, fingerprint, load_folder, save_folder
from mnemos.models.transformer import Transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
        "memories": [describe(memory) for memory in model.memories],
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return config, {WEIGHTS: save(weights), WORDS: tokenizer.to_str().encode()}


def _build(config: dict[str, Any]) -> Transformer:
    memories = [build(described) for described in config["memories"]]
    return Transformer(config["vocabulary_size"], memories, config["feed_forward"], config["context"])
