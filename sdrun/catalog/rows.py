"""Reading the rows of a catalogue file: as `Fields`, but a key nobody knows is a fault, because it is a typing mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed, check, parse_at

T = TypeVar("T")


def fields(file: YamlFile, value: object, path: str, known: tuple[str, ...]) -> Fields:
    """`value` as Fields; every key that is not `known` is noted as a fault of `file`."""
    row = Fields(value, path)
    for name in check(value, dict, path):
        if name not in known:
            file.fault(row.key(name), f"is not a key here; known are {', '.join(known)}")
    return row


def each(file: YamlFile, top: Fields, name: str, known: tuple[str, ...], read: Callable[[Fields], T]) -> Iterator[T]:
    """`read` of every element of list `name`; one that is malformed is noted and left out, so that all faults are told."""
    items: list[tuple[str, object]] = []
    with file.collecting():
        items = top.items(name)
        if not items:
            raise Malformed(top.key(name), "is empty")
    for path, value in items:
        with file.collecting():
            yield read(fields(file, value, path, known))


def texts(row: Fields, name: str, *, optional: bool = False) -> tuple[str, ...]:
    """A list of strings, none twice."""
    values = tuple(check(value, str, path) for path, value in row.items(name, optional=optional))
    if len(set(values)) != len(values):
        raise Malformed(row.key(name), "names something twice")
    return values


def text_map(row: Fields, name: str) -> dict[str, str]:
    """A mapping of strings to strings. A bare ON, off or 1 is no string in YAML, hence refused: it must be quoted."""
    mapping = row.get(name, dict)
    return {str(key): check(value, str, f"{row.key(name)}.{key}") for key, value in mapping.items()}


def parsed(row: Fields, name: str, parser: Callable[[str], T]) -> tuple[T, ...]:
    """A list of strings, each run through `parser`; an absent list is empty."""
    return tuple(parse_at(parser, check(value, str, path), path) for path, value in row.items(name, optional=True))


def matching(row: Fields, name: str, pattern: re.Pattern[str], what: str) -> str:
    """A string that `pattern` fits whole; `what` says in the message what it must be."""
    text = row.get(name, str)
    if not pattern.fullmatch(text):
        raise Malformed(row.key(name), f"must be {what}, not {text[:70]!r}")
    return text


def one_of(row: Fields, name: str, known: tuple[str, ...]) -> str:
    """One of some words."""
    text = row.get(name, str)
    if text not in known:
        raise Malformed(row.key(name), f"must be one of {', '.join(known)}, not {text[:40]!r}")
    return text


def at_least(row: Fields, name: str, least: int) -> int:
    """A whole number from `least` on."""
    value = row.get(name, int)
    if value < least:
        raise Malformed(row.key(name), f"must be at least {least}, is {value}")
    return value
