"""What `where` means, once for every store: a predicate in Python, and the same predicate in SQL.

Values compare by kind: numbers with numbers (1 equals 1.0), text with text by code point, true and
false each only with itself, null with null. A comparison across kinds fits nothing, and arrays and
objects fit nothing but `"ne"`.
"""

import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Scalar = str | int | float | bool | None

_ORDERS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "lt": ("<", operator.lt),
    "le": ("<=", operator.le),
    "gt": (">", operator.gt),
    "ge": (">=", operator.ge),
}
_OPERATORS = ("in", "ne", *_ORDERS)


class Condition(NamedTuple):
    """One comparison: `operands` holds several values for "in", one for every other operator."""

    name: str
    operator: str
    operands: tuple[Scalar, ...]

    def fits(self, entry: Any, missing: bool) -> bool:
        if missing:
            return self.operator == "ne"
        if self.operator in _ORDERS:
            bound = self.operands[0]
            return _kind(entry) == _kind(bound) and _ORDERS[self.operator][1](entry, bound)
        found = any(_kind(entry) == _kind(operand) and entry == operand for operand in self.operands)
        return found != (self.operator == "ne")


class Filter(NamedTuple):
    """A parsed `where`: every condition must fit."""

    conditions: tuple[Condition, ...]

    def fits(self, namespace: str, metadata: Mapping[str, Any] | None) -> bool:
        """Whether a record of this namespace and metadata is meant."""
        entries = metadata or {}
        return all(
            condition.fits(namespace, missing=False)
            if condition.name == "namespace"
            else condition.fits(entries.get(condition.name), missing=condition.name not in entries)
            for condition in self.conditions
        )

    def to_sql(
        self, namespace: str = "namespace", metadata: str = "metadata"
    ) -> tuple[str, list[str | int | float]]:
        """An SQLite expression, with its parameters, that is true for the same records as `fits`.

        Args:
            namespace: SQL for the record's namespace, a text column.
            metadata: SQL for the record's metadata, JSON text or NULL.
        """
        fragments, parameters = ["1"], []
        for condition in self.conditions:
            if condition.name == "namespace":
                fragment, given = _namespace_sql(condition, namespace)
            else:
                fragment, given = _entry_sql(condition, metadata)
            fragments.append(fragment)
            parameters += given
        return " AND ".join(fragments), parameters


def parse(where: Any) -> Filter:
    """Reads a `where` mapping as the `Store` docstring has it; None and {} mean every record.

    Raises:
        ValueError: an unknown operator, a value that is not a JSON scalar, or an ordering by something
            that has no order.
    """
    if where is None:
        return Filter(())
    if not isinstance(where, Mapping):
        raise ValueError(f"where must be a mapping of names to what they are compared with, not {where!r}")
    return Filter(tuple(condition for name, asked in where.items() for condition in _conditions(name, asked)))


def parse_read(where: Any, default: str) -> tuple[str, Filter]:
    """The one namespace that `read` answers from, and the filter on the rest."""
    conditions = parse(where).conditions
    named = [condition for condition in conditions if condition.name == "namespace"]
    if any(condition.operator != "in" or len(condition.operands) != 1 for condition in named):
        raise ValueError(f"read answers from exactly one namespace, not from {(where or {})['namespace']!r}")
    namespace = str(named[0].operands[0]) if named else default
    return namespace, Filter(tuple(condition for condition in conditions if condition.name != "namespace"))


def _conditions(name: Any, asked: Any) -> list[Condition]:
    if not isinstance(name, str):
        raise ValueError(f"where names metadata entries by strings, not by {name!r}")
    check_text(name, "a name in where")
    if not isinstance(asked, Mapping):
        return [Condition(name, "in", (_operand(name, asked),))]
    if not asked:
        raise ValueError(f"where[{name!r}] is empty; give a value or one of {_OPERATORS}")
    return [_condition(name, operation, operand) for operation, operand in asked.items()]


def _condition(name: str, operation: Any, operand: Any) -> Condition:
    if operation not in _OPERATORS:
        raise ValueError(f"where[{name!r}] has the operator {operation!r}; there are {_OPERATORS}")
    if operation == "in":
        if not isinstance(operand, list | tuple | set | frozenset):
            raise ValueError(f"where[{name!r}]['in'] must be a list of values, not {operand!r}")
        return Condition(name, "in", tuple(_operand(name, one) for one in operand))
    condition = Condition(name, operation, (_operand(name, operand),))
    if operation in _ORDERS and _kind(operand) not in ("text", "number"):
        raise ValueError(f"where[{name!r}][{operation!r}] needs a number or a string, not {operand!r}")
    return condition


def _operand(name: str, operand: Any) -> Scalar:
    if name == "namespace" and not isinstance(operand, str):
        raise ValueError(
            f"a namespace is a string, so where['namespace'] cannot be compared with {operand!r}"
        )
    if _kind(operand) == "other":
        raise ValueError(
            f"where[{name!r}] can be compared with a string, number, boolean or None, not with {operand!r}"
        )
    check_scalar(operand, f"where[{name!r}]")
    return operand


def _kind(value: Any) -> str:
    """As `_KIND` below names it; bool comes before int, which it is in Python."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def check_scalar(value: Any, where: str) -> None:
    """Refuses what JSON or SQLite would store as something else: NaN, wide integers, broken text."""
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where} holds {value}, which does not fit 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} holds {value}, which JSON has no number for")


def check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise ValueError(f"{where} holds a NUL character, at which SQLite would cut {text!r} short")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{where} holds half of a surrogate pair: {text!r} is not Unicode text")


# json_each rather than json_extract: a path cannot quote every name, and its quoting changed between
# releases. Numbers travel as JSON so that both sides go through the same decimal conversion.
_KIND = "CASE {0}.type WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' ELSE {0}.type END"
_ENTRY = _KIND.format("entry")
_OPERANDS = f"(SELECT {_KIND.format('operand')}, ifnull(operand.value, '') FROM json_each(?) AS operand)"


def _entry_sql(condition: Condition, metadata: str) -> tuple[str, list[str | int | float]]:
    name, operation, operands = condition
    if operation in _ORDERS:
        test = (
            f"{_ENTRY} = '{_kind(operands[0])}' AND entry.value {_ORDERS[operation][0]} json_extract(?, '$')"
        )
        given = json.dumps(operands[0], ensure_ascii=False)
    else:
        test = f"({_ENTRY}, ifnull(entry.value, '')) IN {_OPERANDS}"
        given = json.dumps(operands, ensure_ascii=False)
    exists = f"EXISTS (SELECT 1 FROM json_each({metadata}) AS entry WHERE entry.key = ? AND {test})"
    return f"NOT {exists}" if operation == "ne" else exists, [name, given]


def _namespace_sql(condition: Condition, namespace: str) -> tuple[str, list[str | int | float]]:
    _, operation, operands = condition
    if operation == "in" and len(operands) > 1:  # one parameter, however many there are
        names = json.dumps(operands, ensure_ascii=False)
        return f"{namespace} IN (SELECT value FROM json_each(?))", [names]
    if not operands:
        return "0", []
    sign = {"in": "=", "ne": "<>"}.get(operation) or _ORDERS[operation][0]
    return f"{namespace} {sign} ?", [str(operands[0])]
