"""A model as a folder: files replaced at once, config.json last, with a fingerprint of them all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
CONFIG = "config.json"


class ModelError(Exception):
    """A model's folder is missing, damaged or too new; the message says which."""


def fingerprint(config: Mapping[str, Any], contents: Mapping[str, bytes]) -> str:
    """SHA-256 over a configuration and the files beside it, in their order."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for content in contents.values():
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def save_folder(
    folder: str | Path, config: Mapping[str, Any], contents: Mapping[str, bytes], config_name: str = CONFIG
) -> str:
    """Writes files and their configuration over those that are there; returns the fingerprint.

    If the machine stops in between, `load_folder` refuses the folder, and never returns a mixture.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = fingerprint(config, contents)
    for name, content in contents.items():
        _replace(folder / name, content)
    header = {"format": FORMAT, "fingerprint": found, "model": dict(config)}
    _replace(folder / config_name, (json.dumps(header, indent=2) + "\n").encode())
    return found


def load_folder(
    folder: str | Path, *names: str, config_name: str = CONFIG
) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """What `save_folder` wrote: the configuration, the files of those names, the fingerprint.

    Raises:
        ModelError: no model in the folder, a file that is missing, truncated or altered, or a format newer
            than this version of mnemos knows.
    """
    folder = Path(folder)
    config, *contents = (_content(folder, name) for name in (config_name, *names))
    try:
        header = json.loads(config)
        written, model, expected = header["format"], header["model"], header["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{folder}/{config_name} is damaged: it is not a model's configuration") from None
    if written > FORMAT:
        raise ModelError(f"{folder} has format {written}, newer than {FORMAT}: update mnemos to open it")
    found = dict(zip(names, contents, strict=True))
    if fingerprint(model, found) != expected:
        raise ModelError(f"{folder} is damaged: a file was truncated, altered, or taken from another model")
    return model, found, expected


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
