"""Strict readers for values that came out of JSON or YAML, so that a fault names the key it sits at.

JSON numbers are never accepted where a version is meant: `12.10` read as a number is 12.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

_KINDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number with a decimal point",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Malformed(ValueError):
    """A value is not what its schema says. `key` is its path (`gpus[0].uuid`), `reason` what is wrong."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


def describe(value: object) -> str:
    """A short rendering of a wrong value for a message: never a megabyte of somebody's file, and never a failure of its own
    (repr of a number of 5,000 digits or of a thousand nested lists is one)."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else repr(value[:57]) + "..."
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return repr(value) if isinstance(value, (int, float)) else _KINDS.get(type(value), type(value).__name__)


def check(value: object, kind: type[T], key: str) -> T:
    """`value` if it is exactly of `kind` (a bool is no int here); raises Malformed naming `key`."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Malformed(key, f"must be {_KINDS[kind]}, not {describe(value)}")
    return value


class Fields:
    """One JSON object at a path. Unknown keys are ignored: a newer writer may know more."""

    __slots__ = ("_data", "path")

    def __init__(self, value: object, path: str = "") -> None:
        self._data: Mapping[str, object] = check(value, dict, path or "(document)")
        self.path = path

    def key(self, name: str) -> str:
        """The full path of field `name`."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str, kind: type[T]) -> T:
        """Field `name`, which must be there and of `kind`."""
        if name not in self._data:
            raise Malformed(self.key(name), "is missing")
        return check(self._data[name], kind, self.key(name))

    def text(self, name: str) -> str:
        """String field `name`, not empty and printable: what ends up in messages and argument lists."""
        return self.parse(name, printable)

    def find(self, name: str, kind: type[T]) -> T | None:
        """Field `name` of `kind`, or None where it is absent or null."""
        value = self._data.get(name)
        return None if value is None else check(value, kind, self.key(name))

    def parse(self, name: str, parser: Callable[[str], T]) -> T:
        """String field `name` run through `parser`, whose ValueError becomes Malformed at this key."""
        return parse_at(parser, self.get(name, str), self.key(name))

    def find_parsed(self, name: str, parser: Callable[[str], T]) -> T | None:
        """As `parse`, or None where the field is absent or null."""
        text = self.find(name, str)
        return None if text is None else parse_at(parser, text, self.key(name))

    def items(self, name: str, *, optional: bool = False) -> list[tuple[str, object]]:
        """The elements of list field `name`, each with its path."""
        values = (self.find(name, list) or []) if optional else self.get(name, list)
        return [(f"{self.key(name)}[{i}]", value) for i, value in enumerate(values)]


def printable(text: str) -> str:
    """`text` if it is not empty and holds no control characters, line breaks or broken Unicode; raises ValueError else."""
    if not text:
        raise ValueError("must not be empty")
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def parse_at(parser: Callable[[str], T], text: str, key: str) -> T:
    """`parser(text)`, a ValueError told as Malformed at `key`."""
    try:
        return parser(text)
    except Malformed:
        raise
    except ValueError as fault:
        raise Malformed(key, str(fault)) from None
