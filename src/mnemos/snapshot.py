"""A memory's state as one file, and back.

The file is in the safetensors format, so that other programs can read the tensors. Its metadata hold
one entry, "mnemos": a JSON header with the format's version, the memory's class and configuration and
their fingerprint, how the tensors nest, and a checksum of the whole file. Parameters are not in it:
`torch.save(memory.state_dict())` keeps those.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import safetensors.torch
import torch
from torch import Tensor, nn

from mnemos.memories.base import Memory
from mnemos.retention.policy import Policy

FORMAT = 1
# The checksum is the SHA-256 of the file in which these zeros stand in its place, so it covers every
# byte but its own. Quotes inside the header's strings are escaped once more, so this is found only once.
_FIELD = b'\\"checksum\\":\\"'
_BLANK = b"0" * 64


class SnapshotError(ValueError):
    """A file that is not a snapshot of this memory, or not a sound one; the message says which."""


def save(path: str | Path, memory: Memory, state: Any) -> None:
    """Writes a state to a file; an interrupted save leaves what was there before.

    The same state gives the same bytes. Tensors are saved by value, without their history. A process
    that is killed while saving can leave a hidden file ending in ".partial" beside it.

    Args:
        path: the file, replaced if there is one. Its directory must exist.
        memory: whose state it is; its class and configuration are recorded.
        state: tensors in nested NamedTuples, tuples, lists and dicts with string keys, and None.

    Raises:
        TypeError: a state or a configuration that holds what cannot be written; nothing is written.
        OSError: the file system refused; nothing is changed.
    """
    initial = memory.initial_state(1)
    if type(state) is not type(initial):
        names = [type(thing).__name__ for thing in (state, memory, initial)]
        raise TypeError("state is a {}, those of this {} are {}".format(*names))
    tensors: dict[str, Tensor] = {}
    header = {
        "checksum": _BLANK.decode(),
        "format": FORMAT,
        **_identity(memory),
        "fingerprint": fingerprint(memory),
        "state": _take_apart(state, "state", _named_tuples(initial), tensors),
    }
    try:
        data = safetensors.torch.save(tensors, {"mnemos": json.dumps(header, separators=(",", ":"))})
    except KeyError as error:
        raise TypeError(f"state holds tensors of {error}, which safetensors cannot hold") from error
    place = data.index(_FIELD) + len(_FIELD)
    checksum = hashlib.sha256(data).hexdigest().encode()
    _replace(Path(path), [data[:place], checksum, memoryview(data)[place + len(checksum) :]])


def load(path: str | Path, memory: Memory) -> Any:
    """The state that `save` wrote, bit for bit, on the memory's device.

    Args:
        path: what `save` wrote.
        memory: of the same class and configuration as the one that saved.

    Raises:
        SnapshotError: a missing, truncated, altered or foreign file, one of another class or
            configuration, or of a newer format.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}") from error
    header = _checked_header(path, data)
    _check_identity(path, header, memory)
    device = memory._origin.device
    tensors = {name: tensor.to(device) for name, tensor in safetensors.torch.load(data).items()}
    types = _named_tuples(memory.initial_state(1))
    try:
        return _put_together(header["state"], "state", types, tensors)
    except KeyError as error:
        raise SnapshotError(f"{path}: states of this memory have no {error}") from error


def fingerprint(memory: Memory) -> str:
    """SHA-256 of the memory's class and configuration: equal where one's state fits the other."""
    canonical = json.dumps(_identity(memory), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _identity(memory: Memory) -> dict[str, Any]:
    configuration = {
        name: _described(value, f"{type(memory).__name__}.{name}")
        for name, value in memory.configuration().items()
    }
    # Through JSON, so that what is read back later is equal, not only alike.
    return json.loads(json.dumps({"class": _qualified(type(memory)), "configuration": configuration}))


def _qualified(thing: type | Callable) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _described(value: Any, name: str) -> Any:
    """A constructor's argument as JSON; what one cannot compare later is refused."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case torch.dtype() | torch.device() | Path():
            return str(value)
        case Policy():
            return value.name
        case Enum():
            return value.name
        case Memory():
            return _identity(value)
        case nn.Module():
            return {"class": _qualified(type(value)), "module": repr(value)}
        case Tensor():
            return {
                "tensor": hashlib.sha256(safetensors.torch.save({"": _by_value(value, name)})).hexdigest()
            }
        case Mapping():
            return {str(key): _described(entry, f"{name}[{key!r}]") for key, entry in value.items()}
        case tuple() | list():
            return [_described(entry, f"{name}[{position}]") for position, entry in enumerate(value)]
        case partial():
            return {"partial": [_described(part, name) for part in (value.func, value.args, value.keywords)]}
    if is_dataclass(value) and not isinstance(value, type):
        entries = {f.name: _described(getattr(value, f.name), f"{name}.{f.name}") for f in fields(value)}
        return {"class": _qualified(type(value)), **entries}
    if callable(value) and "<lambda>" not in getattr(value, "__qualname__", "<lambda>"):
        return _qualified(value)
    raise TypeError(f"{name} = {value!r} cannot be recorded: it has no value or name to compare it by")


def _named_tuples(state: Any) -> dict[str, Any]:
    """The NamedTuple types that occur in a state, by qualified name."""
    if isinstance(state, Mapping):
        state = list(state.values())
    if not isinstance(state, tuple | list):
        return {}
    found = {_qualified(type(state)): type(state)} if hasattr(state, "_fields") else {}
    for child in state:
        found |= _named_tuples(child)
    return found


def _take_apart(node: Any, path: str, types: Mapping[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Puts the tensors below `node` into `tensors` by path, and returns how they nest."""

    def apart(name: str, child: Any) -> Any:
        return _take_apart(child, f"{path}/{quote(name, safe='')}", types, tensors)

    match node:
        case None:
            return None
        case Tensor():
            tensors[path] = _by_value(node, path)
            return "tensor"
        case dict() if type(node) is dict and all(isinstance(key, str) for key in node):
            return {"dict": {key: apart(key, child) for key, child in node.items()}}
        case tuple() | list() if type(node) in (tuple, list):
            return {type(node).__name__: [apart(str(position), child) for position, child in enumerate(node)]}
        case tuple() if types.get(_qualified(type(node))) is type(node):
            names = types[_qualified(type(node))]._fields
            entries = {name: apart(name, child) for name, child in zip(names, node, strict=True)}
            return {"type": _qualified(type(node)), "fields": entries}
    raise TypeError(
        f"{path} is a {type(node).__name__}: a state of this memory is tensors in tuples, lists, dicts "
        f"with string keys, and {', '.join(kind.__name__ for kind in types.values())}"
    )


def _put_together(node: Any, path: str, types: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_take_apart`."""

    def together(name: str, child: Any) -> Any:
        return _put_together(child, f"{path}/{quote(name, safe='')}", types, tensors)

    match node:
        case None:
            return None
        case "tensor":
            return tensors[path]
        case {"dict": entries}:
            return {key: together(key, child) for key, child in entries.items()}
        case {"list": entries}:
            return [together(str(position), child) for position, child in enumerate(entries)]
        case {"tuple": entries}:
            return tuple(together(str(position), child) for position, child in enumerate(entries))
    kind = types[node["type"]]
    if list(node["fields"]) != list(kind._fields):
        raise KeyError(f"{node['type']} with fields {list(node['fields'])}")
    return kind(**{name: together(name, child) for name, child in node["fields"].items()})


def _by_value(tensor: Tensor, path: str) -> Tensor:
    if tensor.layout != torch.strided:
        raise TypeError(f"{path} is {tensor.layout}, which safetensors cannot hold: use to_dense()")
    # A conjugate or negative view shares the memory of what it is a view of, and only its flag differs.
    return tensor.detach().resolve_conj().resolve_neg().cpu().clone(memory_format=torch.contiguous_format)


def _checked_header(path: str | Path, data: bytes) -> dict[str, Any]:
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or data[8:9] != b"{":
        raise SnapshotError(f"{path} is not a snapshot, or too damaged to tell ({len(data)} bytes)")
    if len(data) < end:
        raise SnapshotError(
            f"{path} is truncated, or not a snapshot: {len(data)} bytes, the header needs {end}"
        )
    place = data.find(_FIELD, 8, end)
    if place < 0:
        raise SnapshotError(f"{path} is not a snapshot of a memory, or its header is damaged")
    place += len(_FIELD)
    digest = hashlib.sha256(data[:place])
    digest.update(_BLANK)
    digest.update(memoryview(data)[place + len(_BLANK) :])
    if digest.hexdigest().encode() != data[place : place + len(_BLANK)]:
        raise SnapshotError(
            f"{path} is damaged or truncated: its checksum does not fit its {len(data)} bytes"
        )
    header = json.loads(json.loads(data[8:end])["__metadata__"]["mnemos"])
    if header["format"] > FORMAT:
        raise SnapshotError(
            f"{path} has format {header['format']}, newer than {FORMAT}, which this mnemos reads: upgrade it"
        )
    return header


def _check_identity(path: str | Path, header: Mapping[str, Any], memory: Memory) -> None:
    expected = _identity(memory)
    if header["class"] != expected["class"]:
        raise SnapshotError(f"{path} is of a {header['class']}, not of a {expected['class']}")
    if header["fingerprint"] != fingerprint(memory):
        differences = _differences(header["configuration"], expected["configuration"], "")
        raise SnapshotError(f"{path} is of another configuration: {'; '.join(differences)}")


def _differences(was: Any, now: Any, name: str) -> list[str]:
    """A clause for every argument that differs, nested ones by dotted name."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return [] if was == now else [f"{name} was {was!r}, is {now!r}"]
    differences = []
    for key in dict.fromkeys([*was, *now]):
        inner = f"{name}.{key}" if name else key
        differences += _differences(was.get(key), now.get(key), inner)
    return differences


def _replace(path: Path, parts: list[bytes | memoryview]) -> None:
    """Puts a file in the place of another at one moment, and returns when it is on the disk."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(new, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
