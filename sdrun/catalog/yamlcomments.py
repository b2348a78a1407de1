"""Comments of a YAML file kept when the file is written anew: each goes with the line it stood above or behind.

Lines are known by what they say and not by where they stand: an element of a list by its `name` or `node`, or by its own text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdrun.catalog.yamlfile import YamlFile

_IDENTITY = ("name", "node")
GONE = "# Kept from entries that are gone:"


@dataclass(frozen=True, slots=True)
class Comments:
    """`above`: line's identity -> the comment lines before it, without indentation; `behind`: identity -> the comment at its
    end; `last`: what stands behind everything."""

    above: dict[str, tuple[str, ...]]
    behind: dict[str, str]
    last: tuple[str, ...]


def keep_comments(old: str, new: str) -> str:
    """`new` with the comments of `old`. Comments that `new` has itself stay as they are in it; those whose line is gone come
    last. Both texts must be YAML. Done again with the result, nothing changes."""
    held, own = comments(old), comments(new)
    fresh = {line for lines in own.above.values() for line in lines}
    places = identities(new)
    lines: list[str] = []
    for number, line in enumerate(new.splitlines()):
        place = places.get(number)
        if place is not None:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [f"{indent}{text}" if text else "" for text in held.above.get(place, ()) if text not in fresh]
            line += f"  {held.behind[place]}" if place in held.behind else ""
        lines.append(line)
    known = set(places.values())
    lost = [text for place, texts in held.above.items() if place not in known for text in texts if text and text not in fresh]
    lost += [text for place, text in held.behind.items() if place not in known]
    before = [text for text in held.last if text != GONE]
    tail = [*before, *lost]
    return "\n".join([*lines, *([GONE, *tail] if lost or GONE in held.last else tail)]) + "\n"


def comments(text: str) -> Comments:
    """Every comment of `text` by the line it belongs to."""
    places = identities(text)
    above: dict[str, tuple[str, ...]] = {}
    behind: dict[str, str] = {}
    waiting: list[str] = []
    for number, line in enumerate(text.splitlines()):
        content, comment = split_comment(line)
        if not content.strip():
            if comment:
                waiting.append(comment)
            continue
        place = places.get(number)
        if place is None:
            continue
        if waiting:
            above[place], waiting = tuple(waiting), []
        if comment:
            behind[place] = comment
    return Comments(above, behind, tuple(waiting))


def split_comment(line: str) -> tuple[str, str]:
    """The line before its comment, and the comment from `#` on; empty where there is none. A `#` within quotes, or without a
    blank before it, begins none (YAML 1.2, section 6.6)."""
    quote, skipped = "", False
    for place, character in enumerate(line):
        if skipped:
            skipped = False
        elif quote:
            doubled = quote == "'" and line[place : place + 2] == "''"
            skipped = doubled or (quote == '"' and character == "\\")
            quote = "" if character == quote and not doubled else quote
        elif character in "\"'" and (not line[:place].strip() or line[place - 1] in " [,{"):
            quote = character
        elif character == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place], line[place:].rstrip()
    return line, ""


def identities(text: str) -> dict[int, str]:
    """Line number (from 0) -> what stands there: the outermost key or element that begins on it."""
    file = YamlFile(Path("text"), text)
    found: dict[int, str] = {}
    for key, identity in _walk(file.data, "", ""):
        found.setdefault(file.line(key) - 1, identity)
    return found


def _walk(value: object, key: str, identity: str) -> Iterator[tuple[str, str]]:
    """Every key of the document, outermost first: as YamlFile knows it, and as it is known to people."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            yield path, f"{identity}.{name}"
            yield from _walk(inner, path, f"{identity}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            path = f"{key}[{number}]"
            yield path, f"{identity}[{_called(inner)}]"
            yield from _walk(inner, path, f"{identity}[{_called(inner)}]")


def _called(element: object) -> str:
    if isinstance(element, dict):
        return str(next((element[name] for name in _IDENTITY if name in element), ""))
    return str(element)
