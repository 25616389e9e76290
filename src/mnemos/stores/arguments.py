"""Checks of what a store is given, the same for every store, before anything is written.

Arguments are annotated `Any` where the check of their type is what the function is for.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from mnemos.stores.base import Metric, Schema
from mnemos.stores.filters import check_scalar, check_text

KEY_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bits": torch.uint8,
}
ArrayLike = Tensor | np.ndarray | Sequence
_DEPTH = 100  # SQLite's own limit is 1,000, but Python's recursion ends sooner


class Batch(NamedTuple):
    """Records that fit their store: detached, contiguous, on the CPU."""

    keys: Shaped[Tensor, "records keys"]
    values: Shaped[Tensor, "records *value"]
    metadata: list[str | None]  # JSON text
    strength: Float64[Tensor, " records"]


class Changes(NamedTuple):
    """What an update replaces; None stays as it is."""

    keys: Shaped[Tensor, "records keys"] | None
    values: Shaped[Tensor, "records *value"] | None
    metadata: list[str | None] | None
    strength: Float64[Tensor, " records"] | None


def prepare_write(
    schema: Schema | None,
    metric: Metric | None,
    keys: ArrayLike,
    values: ArrayLike,
    metadata: Any = None,
    strength: ArrayLike | None = None,
) -> tuple[Schema, Batch]:
    """Checks a batch against the schema, or infers the schema from the first.

    Args:
        schema: None before the first write.
        metric: as given when the store was opened; None means what suits the keys.

    Raises:
        ValueError: naming the argument, what was given and what was expected.
    """
    keys, values = _tensor("keys", keys, _key_dtype(schema)), _tensor("values", values, _value_dtype(schema))
    schema = schema or infer_schema(metric, keys, values)
    count = _check_keys(schema, keys)
    _check_values(schema, values, count)
    return schema, Batch(keys, values, _metadata(metadata, count), _strength(strength, count))


def prepare_update(
    schema: Schema,
    count: int,
    keys: ArrayLike | None,
    values: ArrayLike | None,
    metadata: Any,
    strength: ArrayLike | None,
) -> Changes:
    """Checks what replaces parts of `count` records."""
    new_keys = None if keys is None else _tensor("keys", keys, _key_dtype(schema))
    new_values = None if values is None else _tensor("values", values, _value_dtype(schema))
    if new_keys is not None:
        _check_count("keys", _check_keys(schema, new_keys), count, "ids")
    if new_values is not None:
        _check_values(schema, new_values, count, "ids")
    return Changes(
        new_keys,
        new_values,
        None if metadata is None else _metadata(metadata, count),
        None if strength is None else _strength(strength, count),
    )


def prepare_queries(schema: Schema, queries: ArrayLike) -> Tensor:
    """Queries as float32, or uint8 for bits, that fit the keys."""
    tensor = _tensor("queries", queries, torch.uint8 if schema.key_dtype == "bits" else torch.float32)
    if schema.key_dtype == "bits":
        if tensor.dtype != torch.uint8:
            raise ValueError(f"queries must be packed bits (uint8), as the keys are, not {tensor.dtype}")
    elif not tensor.is_floating_point():
        raise ValueError(f"queries must be of a floating-point dtype, not {tensor.dtype}")
    _check_matrix("queries", tensor, schema.key_size)
    if tensor.is_floating_point():
        tensor = tensor.float()
        _check_finite("queries", tensor)
    return tensor


def prepare_ids(ids: ArrayLike, unique: bool = False) -> Int64[Tensor, " records"]:
    """Ids as int64; `unique` refuses one that is given twice."""
    tensor = _tensor("ids", ids, torch.int64)
    if tensor.dtype not in (torch.int64, torch.int32) or tensor.dim() != 1:
        raise ValueError(
            f"ids must be a one-dimensional int64 tensor, not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    tensor = tensor.long()
    if unique:
        given, times = tensor.unique(return_counts=True)
        if len(given) < len(tensor):
            raise ValueError(f"ids names {given[times > 1].tolist()[:10]} more than once")
    return tensor


def prepare_namespace(namespace: Any) -> str:
    """A namespace is any non-empty text."""
    if not isinstance(namespace, str) or not namespace:
        raise ValueError(f"namespace must be a non-empty string, not {namespace!r}")
    check_text(namespace, "namespace")
    return namespace


def check_k(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, not {k!r}")


def check_keep(keep: Any) -> None:
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise ValueError(f"keep must be an integer of at least 0, not {keep!r}")


def missing_ids(ids: Sequence[int]) -> KeyError:
    """The error for ids that are not in the store; names the first ten."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return KeyError(f"not in the store: ids {list(ids[:10])}{more}")


def infer_schema(metric: Metric | None, keys: Tensor, values: Tensor) -> Schema:
    """The schema that a first batch fixes."""
    names = {dtype: name for name, dtype in KEY_DTYPES.items()}
    if keys.dtype not in names:
        raise ValueError(
            f"keys must be float32, float16, bfloat16, or uint8 for packed bits, not {keys.dtype}"
        )
    if keys.dim() != 2 or keys.shape[1] == 0:
        raise ValueError(f"keys must be of shape (records, keys), not {tuple(keys.shape)}")
    if values.dim() < 1:
        raise ValueError("values must have the records as their first axis, not be a scalar")
    bits = keys.dtype == torch.uint8
    metric = metric or ("hamming" if bits else "inner_product")
    if bits != (metric == "hamming"):
        raise ValueError(f"keys of {keys.dtype} cannot be compared by the store's metric {metric!r}")
    value_dtype = str(values.dtype).removeprefix("torch.")
    return Schema(names[keys.dtype], keys.shape[1], value_dtype, tuple(values.shape[1:]), metric)


def _tensor(name: str, data: ArrayLike, dtype: torch.dtype | None) -> Tensor:
    """Detached, on the CPU, contiguous. Plain lists, which have no dtype, take the one expected."""
    try:
        if isinstance(data, Tensor):
            return data.detach().cpu().contiguous()
        if isinstance(data, np.ndarray):
            return torch.tensor(data)
        return torch.tensor(data, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as a tensor: {error}") from error


def _key_dtype(schema: Schema | None) -> torch.dtype | None:
    return KEY_DTYPES[schema.key_dtype] if schema else None


def _value_dtype(schema: Schema | None) -> torch.dtype | None:
    return getattr(torch, schema.value_dtype) if schema else None


def _check_keys(schema: Schema, keys: Tensor) -> int:
    expected = KEY_DTYPES[schema.key_dtype]
    if keys.dtype != expected:
        raise ValueError(f"keys must be {expected}, as the store's are, not {keys.dtype}")
    _check_matrix("keys", keys, schema.key_size)
    _check_finite("keys", keys)
    return keys.shape[0]


def _check_values(schema: Schema, values: Tensor, count: int, counted: str = "keys") -> None:
    expected = getattr(torch, schema.value_dtype)
    if values.dtype != expected or values.shape[1:] != schema.value_shape:
        raise ValueError(
            f"values must be {expected} of shape (records, *{schema.value_shape}), as the store's are, "
            f"not {values.dtype} of shape {tuple(values.shape)}"
        )
    _check_count("values", values.shape[0] if values.dim() else 0, count, counted)


def _check_count(name: str, given: int, expected: int, counted: str) -> None:
    if given != expected:
        raise ValueError(f"{name} holds {given} records and {counted} {expected}")


def _check_matrix(name: str, tensor: Tensor, size: int) -> None:
    if tensor.dim() != 2 or tensor.shape[1] != size:
        raise ValueError(f"{name} must be of shape (records, {size}), not {tuple(tensor.shape)}")


def _check_finite(name: str, tensor: Tensor) -> None:
    # One infinity or NaN makes the sum one too; a sum may also overflow, so only then look at each.
    if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
        return
    if not tensor.isfinite().all():
        row = int((~tensor.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}")


def _strength(strength: ArrayLike | None, count: int) -> Tensor:
    if strength is None:
        return torch.ones(count, dtype=torch.float64)
    tensor = _tensor("strength", strength, torch.float64).double()
    if tensor.shape != (count,):
        raise ValueError(f"strength must hold one number per record, ({count},), not {tuple(tensor.shape)}")
    if not bool(((tensor >= 0) & tensor.isfinite()).all()):
        raise ValueError("strength must be finite and not negative")
    return tensor


def _metadata(metadata: Any, count: int) -> list[str | None]:
    if metadata is None:
        return [None] * count
    if isinstance(metadata, str | Mapping) or not isinstance(metadata, Sequence):
        raise ValueError(f"metadata must be a list with one mapping or None per record, not {metadata!r}")
    _check_count("metadata", len(metadata), count, "the batch")
    return [None if one is None else json_text(one, f"metadata[{row}]") for row, one in enumerate(metadata)]


def json_text(metadata: Any, where: str) -> str:
    """A record's metadata as JSON text; what would come back as something else is refused."""
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{where} must be a mapping or None, not {type(metadata).__name__}")
    _check_json(dict(metadata), where, _DEPTH)
    return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)


def _check_json(value: Any, where: str, depth: int) -> None:
    if not depth:
        raise ValueError(f"{where} is nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        for name, entry in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{where} has the key {name!r}; JSON objects have strings for keys")
            check_text(name, f"a key of {where}")
            _check_json(entry, f"{where}[{name!r}]", depth - 1)
    elif isinstance(value, list):
        for entry in value:
            _check_json(entry, where, depth - 1)
    elif value is None or isinstance(value, str | int | float):
        check_scalar(value, where)
    else:
        raise ValueError(f"{where} holds a {type(value).__name__}, which is not a JSON type")
