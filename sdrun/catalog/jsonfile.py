"""JSON documents from files that anybody may have written: of bounded size, and not waited for where nobody writes."""

from __future__ import annotations

import json
import os
import select
import stat
from pathlib import Path

MAX_BYTES = 8 << 20  # an index of 10,000 images is half of that
WRITER_WITHIN_MS = 2000  # how long a pipe that nobody has opened for writing is watched


class Unreadable(ValueError):
    """The file holds no JSON document; the text names it, and the line where there is one."""


def read_json(path: str | Path) -> object:
    """The document in `path` (`-`: stdin), at most 8 MiB of UTF-8. Raises Unreadable for a file that cannot be read, is too
    large or no JSON, names a key twice in one object, or is a pipe that nobody writes to. Values that are not JSON (NaN) and
    documents nested too deeply to be read are refused as well."""
    name = shown(path)
    try:
        text = _read(path).decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins)
    except OSError as fault:
        raise Unreadable(f"{name}: cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{name}: is not UTF-8 text") from None
    except json.JSONDecodeError as fault:
        raise Unreadable(f"{name}:{fault.lineno}: is not JSON: {fault.msg}") from None
    except RecursionError:
        raise Unreadable(f"{name}: is nested too deeply") from None
    except ValueError as fault:  # too large, a twin key, a number of thousands of digits, a NUL in the name
        raise Unreadable(f"{name}: {fault}") from None


def shown(path: str | Path) -> str:
    """How messages name the file: on one line, whatever its name holds."""
    name = str(path)
    return "stdin" if name == "-" else name if name.isprintable() else repr(name)


def _read(path: str | Path) -> bytes:
    # Not blocking: opening a pipe would else wait for a writer who may never come.
    handle = 0 if str(path) == "-" else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0, closefd=handle != 0) as file:
        data = b""
        if handle != 0:
            data = _first_byte(handle) if stat.S_ISFIFO(os.fstat(handle).st_mode) else b""
            os.set_blocking(handle, True)
        while len(data) <= MAX_BYTES and (more := file.read(MAX_BYTES + 1 - len(data))):
            data += more
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB, which such a document never is")
    return data


def _first_byte(handle: int) -> bytes:
    """Waits for a writer of the pipe; the byte that had to be read to find out, or nothing where there was no need."""
    watch = select.poll()
    watch.register(handle, select.POLLIN)
    if watch.poll(WRITER_WITHIN_MS):
        return b""
    try:
        byte = os.read(handle, 1)
    except BlockingIOError:
        return b""  # there is a writer, who takes his time
    if not byte:
        raise ValueError("is a pipe that nobody writes to")
    return byte


def _refuse_constant(name: str) -> object:
    raise ValueError(f"holds {name}, which is not JSON")


def _refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names the key {twin[:40]!r} twice in one object")
    return row
