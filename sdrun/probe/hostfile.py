"""Host facts from a file (schema sdrun.host/v1)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sdrun.core.decode import Malformed
from sdrun.core.host import HostFacts, from_json
from sdrun.errors import BadConfiguration

MAX_BYTES = 32 << 20
_REMEDY = "Write the facts with `sdrun detect --json > host.json` on the machine they describe."


def read_host_facts(path: str | Path) -> HostFacts:
    """The facts in `path` (`-`: stdin), at most 32 MiB. Raises BadConfiguration (id `bad-host-facts`) naming file and key."""
    name = "stdin" if str(path) == "-" else str(path)
    try:
        text = _read(path).decode("utf-8-sig")
        return from_json(json.loads(text, parse_constant=_refuse_constant))
    except OSError as fault:
        raise _bad(f"{name}: cannot be read: {fault.strerror}", "Name a file that this user may read.") from None
    except UnicodeDecodeError:
        raise _bad(f"{name}: is not UTF-8 text", _REMEDY) from None
    except json.JSONDecodeError as fault:
        raise _bad(f"{name}:{fault.lineno}: is not JSON: {fault.msg}", _REMEDY) from None
    except RecursionError:
        raise _bad(f"{name}: is nested too deeply", _REMEDY) from None
    except Malformed as fault:
        raise _bad(f"{name}: {fault.key}: {fault.reason}", f"Correct {fault.key}. {_REMEDY}") from None
    except ValueError as fault:  # a number of thousands of digits, a NUL in the name, too large
        raise _bad(f"{name}: {fault}", _REMEDY) from None


def _read(path: str | Path) -> bytes:
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB, which host facts never are")
    return data


def _refuse_constant(name: str) -> object:
    raise ValueError(f"holds {name}, which is not JSON")


def _bad(message: str, remedy: str) -> BadConfiguration:
    return BadConfiguration(message, remedy, id="bad-host-facts")
