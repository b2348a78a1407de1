"""Host facts from a file (schema sdrun.host/v1)."""

from __future__ import annotations

from pathlib import Path

from sdrun.catalog.jsonfile import Unreadable, read_json, shown
from sdrun.core.decode import Malformed
from sdrun.core.host import HostFacts, from_json
from sdrun.errors import BadConfiguration

_REMEDY = "Write the facts with `sdrun detect --json > host.json` on the machine they describe."


def read_host_facts(path: str | Path) -> HostFacts:
    """The facts in `path` (`-`: stdin), at most 8 MiB. Raises BadConfiguration (id `bad-host-facts`) naming file and key."""
    try:
        return from_json(read_json(path))
    except Unreadable as fault:
        raise BadConfiguration(str(fault), _REMEDY, id="bad-host-facts") from None
    except Malformed as fault:
        remedy = f"Correct {fault.key}. {_REMEDY}"
        raise BadConfiguration(f"{shown(path)}: {fault.key}: {fault.reason}", remedy, id="bad-host-facts") from None
