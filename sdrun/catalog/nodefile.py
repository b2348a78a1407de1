"""The nodes of a cluster from a file: what `kubectl get nodes -o json` prints, read one node at a time, or an inventory.

A node is 5 to 30 kB as the API server prints it, so ten thousand of them do not fit where one of them is looked at.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sdrun.catalog.jsonfile import shown
from sdrun.core.decode import Malformed
from sdrun.errors import BadConfiguration

_CHUNK = 1 << 20
_MAX_NODE = 8 << 20  # characters: no API server takes an object of half of that
_MAX_INVENTORY = 8 << 20
_ITEMS = re.compile(r'"items"\s*:\s*\[')
_SPACE = re.compile(r"[\s,]*")
_REMEDY = "Write it with: kubectl get nodes -o json > nodes.json; or name an inventory (docs/fleet.md)."


@contextmanager
def node_errors(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong while the file is read into BadConfiguration (id `bad-nodes`) naming file and key."""
    try:
        yield
    except OSError as fault:
        raise BadConfiguration(f"{shown(path)}: cannot be read: {fault.strerror}", _REMEDY, id="bad-nodes") from None
    except UnicodeDecodeError:
        raise BadConfiguration(f"{shown(path)}: is not UTF-8 text", _REMEDY, id="bad-nodes") from None
    except Malformed as fault:
        raise BadConfiguration(f"{shown(path)}: {fault.key}: {fault.reason}", _REMEDY, id="bad-nodes") from None
    except RecursionError:
        raise BadConfiguration(f"{shown(path)}: is nested too deeply", _REMEDY, id="bad-nodes") from None


class Text:
    """A file as text that grows while it is read; what has been used is thrown away."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Reads on; False at the end of the file."""
        data = b"" if self.ended else self._stream.read(_CHUNK)
        self.ended = not data
        self.text = self.text[self.at :] + self._decoder.decode(data, final=self.ended)
        self.at = 0
        return not self.ended

    def start(self) -> str:
        """The first character that is no blank, empty for an empty file."""
        while not self.text.strip() and self.more():
            pass
        return self.text.strip()[:1]


@contextmanager
def opened(path: str | Path) -> Iterator[Text]:
    """The file (`-`: stdin)."""
    if str(path) == "-":
        yield Text(sys.stdin.buffer)
        return
    with Path(path).open("rb", buffering=0) as stream:
        yield Text(stream)


def items(source: Text) -> Iterator[tuple[str, object]]:
    """Each node's document with its path (`items[3]`), out of a List, a NodeList, or one Node alone. Raises Malformed."""
    found = _ITEMS.search(source.text)
    while found is None and len(source.text) < _MAX_NODE and source.more():
        found = _ITEMS.search(source.text)
    if found is None or _is_single(source.text[: found.start()]):
        yield "", _single(source)
        return
    _check_head(source.text[: found.start()])
    source.at = found.end()
    decoder, number = json.JSONDecoder(), 0
    while True:
        position = _next(source)
        if source.text[position] == "]":
            return
        yield f"items[{number}]", _item(source, decoder, position, f"items[{number}]")
        number += 1


def _check_head(text: str) -> None:
    if not text.lstrip().startswith("{"):
        raise Malformed("(document)", "is not JSON")


def _is_single(head: str) -> bool:
    """Whether "items" stands somewhere within a Node: a list has its own at depth one."""
    return head.count("{") - head.count("}") != 1 or re.search(r'"kind"\s*:\s*"Node"', head) is not None


def _single(source: Text) -> object:
    while len(source.text) <= _MAX_NODE and source.more():
        pass
    try:
        document = json.loads(source.text)
    except ValueError as fault:
        raise Malformed("(document)", f"is not JSON: {_told(fault)}") from None
    if not isinstance(document, dict) or document.get("kind") != "Node":
        raise Malformed("items", "is missing: this is no list of nodes")
    return document


def _next(source: Text) -> int:
    """Where the next node begins, or the list ends."""
    while True:
        match = _SPACE.match(source.text, source.at)
        position = match.end() if match else source.at
        if position < len(source.text):
            return position
        if not source.more():
            raise Malformed("items", "ends in the middle: the file is not whole")


def _item(source: Text, decoder: json.JSONDecoder, position: int, path: str) -> object:
    source.at = position
    while True:
        try:
            value, end = decoder.raw_decode(source.text, source.at)
        except json.JSONDecodeError as fault:
            if len(source.text) - source.at > _MAX_NODE or not source.more():
                raise Malformed(path, f"is not JSON, or the file is not whole: {_told(fault)}") from None
            continue
        source.at = end
        return value


def _told(fault: ValueError) -> str:
    return fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)[:80]


def whole(source: Text) -> str:
    """The whole text of an inventory. Raises Malformed for one that no hand has written."""
    while source.more():
        if len(source.text) > _MAX_INVENTORY:
            raise Malformed("(document)", f"is larger than {_MAX_INVENTORY >> 20} MiB, which an inventory never is")
    return source.text
