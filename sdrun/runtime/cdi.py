"""Names of the devices that CDI specification files declare, for daemons that do not list them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

DEFAULT_FOLDERS = ("/etc/cdi", "/var/run/cdi")


def devices_in(folders: Iterable[str]) -> tuple[str, ...]:
    """Fully qualified device names (`nvidia.com/gpu=0`) of every specification in `folders`, sorted. A file that cannot be read
    or is no specification is passed over, as the runtimes do."""
    return tuple(sorted({name for folder in folders for path in _files(Path(folder)) for name in _names(path)}))


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix in (".json", ".yaml")]
    except OSError:
        return []


def _names(path: Path) -> Iterator[str]:
    try:
        document = _load(path)
    except (OSError, ValueError, RecursionError):
        return
    devices = document.get("devices") if isinstance(document, dict) else None
    if isinstance(document, dict) and isinstance(devices, list) and isinstance(kind := document.get("kind"), str):
        yield from (f"{kind}={row['name']}" for row in devices if isinstance(row, dict) and "name" in row)


def _load(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    from sdrun.catalog.plainyaml import load_plain

    return load_plain(text)
