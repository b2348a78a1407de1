"""An index from a file (schema sdrun.index/v1)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sdrun.core.decode import Malformed
from sdrun.core.index import Index, from_json
from sdrun.errors import BadConfiguration

MAX_BYTES = 32 << 20
_REMEDY = "Name a file of schema sdrun.index/v1 with --index or SDRUN_INDEX."


def read_index(path: str | Path) -> Index:
    """The index in `path` (`-`: stdin), at most 32 MiB. Raises BadConfiguration (id `bad-index`) naming file and key."""
    name = "stdin" if str(path) == "-" else str(path)
    try:
        return from_json(json.loads(_read(path).decode("utf-8-sig"), parse_constant=_refuse_constant))
    except OSError as fault:
        raise _bad(f"{name}: cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise _bad(f"{name}: is not UTF-8 text") from None
    except json.JSONDecodeError as fault:
        raise _bad(f"{name}:{fault.lineno}: is not JSON: {fault.msg}") from None
    except RecursionError:
        raise _bad(f"{name}: is nested too deeply") from None
    except Malformed as fault:
        raise _bad(f"{name}: {fault.key}: {fault.reason}") from None
    except ValueError as fault:  # a number of thousands of digits, a NUL in the name, too large
        raise _bad(f"{name}: {fault}") from None


def _read(path: str | Path) -> bytes:
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB, which an index never is")
    return data


def _refuse_constant(name: str) -> object:
    raise ValueError(f"holds {name}, which is not JSON")


def _bad(message: str) -> BadConfiguration:
    return BadConfiguration(message, _REMEDY, id="bad-index")
