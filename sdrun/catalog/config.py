"""Settings: what an operator says once instead of on every command line.

Precedence, strongest first: a flag of the verb, a `SDRUN_*` variable, the file named by --config, the user's file
(`$XDG_CONFIG_HOME/sdrun/config.yaml`), the site's (`/etc/sdrun/config.yaml`). Files are merged key by key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrun.errors import BadConfiguration

SITE_FILE = Path("/etc/sdrun/config.yaml")
_VARIABLES = {"index": "SDRUN_INDEX", "registry": "SDRUN_REGISTRY", "runtime": "SDRUN_RUNTIME"}


@dataclass(frozen=True, slots=True)
class Settings:
    """`index`: a file with the published images (sdrun.index/v1); `registry`: a repository that holds an index;
    `runtime`: `docker` or `podman`; None where nobody said anything."""

    index: str | None = None
    registry: str | None = None
    runtime: str | None = None


def user_file(environ: Mapping[str, str]) -> Path:
    """Where the user's own settings are looked for."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "sdrun" / "config.yaml"


def load_settings(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. Raises BadConfiguration (id `bad-config`) naming file and line for an unknown key, a value
    that is not a string, a file that may not be read, or an `explicit` file that is not there."""
    values: dict[str, str] = {}
    for path in (SITE_FILE, user_file(environ)):
        if _is_there(path):
            values.update(_read(path, "Make it readable for you, or set XDG_CONFIG_HOME to a folder of yours."))
    if explicit is not None:
        values.update(_read(explicit, "Check the path given to --config."))
    values.update({name: environ[variable] for name, variable in _VARIABLES.items() if environ.get(variable)})
    settings = Settings(**values)
    if settings.runtime not in (None, "docker", "podman"):
        raise BadConfiguration(
            f'runtime must be "docker" or "podman", not {settings.runtime!r}',
            "Correct SDRUN_RUNTIME or the settings file.",
            id="bad-config",
        )
    return settings


def _is_there(path: Path) -> bool:
    """True also for a file that cannot be looked at, in a folder that is closed to the caller: reading it says so."""
    try:
        return path.is_file()
    except OSError:
        return True


def _read(path: Path, remedy: str) -> dict[str, str]:
    """The settings in the file; `remedy` is for one that cannot be read."""
    from sdrun.catalog.yamlfile import YamlFile  # PyYAML is imported only where there is a file to read

    try:
        path.open("rb").close()
    except OSError as fault:
        raise BadConfiguration(f"{path}: cannot be read: {fault.strerror}", remedy, id="bad-config") from None
    try:
        file = YamlFile(path)
        data = file.data if file.data is not None else {}
        if not isinstance(data, dict):
            file.fault("", "must be a mapping of settings")
            data = {}
        for key, value in data.items():
            if key not in _VARIABLES:
                file.fault(key, f"is no setting; there are {', '.join(_VARIABLES)}")
            elif not isinstance(value, str) or not value:
                file.fault(key, "must be a string")
        file.finish()
    except BadConfiguration as fault:
        raise BadConfiguration(fault.message, fault.remedy, id="bad-config") from None
    return dict(data)
