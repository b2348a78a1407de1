"""An index from a file (schema sdrun.index/v1)."""

from __future__ import annotations

from pathlib import Path

from sdrun.catalog.jsonfile import Unreadable, read_json, shown
from sdrun.core.decode import Malformed
from sdrun.core.index import Index, from_json
from sdrun.errors import BadConfiguration

_REMEDY = "Name a file of schema sdrun.index/v1 with --index or SDRUN_INDEX."


def read_index(path: str | Path) -> Index:
    """The index in `path` (`-`: stdin), at most 8 MiB. Raises BadConfiguration (id `bad-index`) naming file and key."""
    try:
        return from_json(read_json(path))
    except Unreadable as fault:
        raise BadConfiguration(str(fault), _REMEDY, id="bad-index") from None
    except Malformed as fault:
        raise BadConfiguration(f"{shown(path)}: {fault.key}: {fault.reason}", _REMEDY, id="bad-index") from None
