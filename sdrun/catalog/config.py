"""Settings: what an operator says once instead of on every command line.

Precedence, strongest first: a flag of the verb, a `SDRUN_*` variable, the file named by --config, the user's file
(`$XDG_CONFIG_HOME/sdrun/config.yaml`), the site's (`/etc/sdrun/config.yaml`). Files are merged key by key. The mirrors belong
to the registry of the files: where SDRUN_REGISTRY names one, they are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrun.errors import BadConfiguration
from sdrun.resources import at_home

if TYPE_CHECKING:
    from sdrun.catalog.yamlfile import YamlFile
    from sdrun.core.signing import SignaturePolicy

SITE_FILE = Path("/etc/sdrun/config.yaml")
_VARIABLES = {"index": "SDRUN_INDEX", "registry": "SDRUN_REGISTRY", "runtime": "SDRUN_RUNTIME"}


@dataclass(frozen=True, slots=True)
class Settings:
    """`index`: a file with the published images (sdrun.index/v1); `registry`: a repository that holds an index, `mirrors`
    others with the same content, in the order to try them; `runtime`: `docker` or `podman`; `verify`: the signatures that
    images from a registry must have. None where nobody said anything."""

    index: str | None = None
    registry: str | None = None
    runtime: str | None = None
    mirrors: tuple[str, ...] = ()
    verify: SignaturePolicy | None = None


def user_file(environ: Mapping[str, str]) -> Path:
    """Where the user's own settings are looked for."""
    home = environ.get("XDG_CONFIG_HOME") or str(at_home(environ.get("HOME") or "~") / ".config")
    return Path(home) / "sdrun" / "config.yaml"


def load_settings(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. Raises BadConfiguration (id `bad-config`) naming file and line for an unknown key, a value
    that is not a string, a file that may not be read, or an `explicit` file that is not there."""
    values: dict[str, Any] = {}
    for path in (SITE_FILE, user_file(environ)):
        if _is_there(path):
            values.update(_read(path, "Make it readable for you, or set XDG_CONFIG_HOME to a folder of yours."))
    if explicit is not None:
        values.update(_read(explicit, "Check the path given to --config."))
    values.update({name: environ[variable] for name, variable in _VARIABLES.items() if environ.get(variable)})
    if environ.get("SDRUN_REGISTRY"):
        values.pop("mirrors", None)
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


def _read(path: Path, remedy: str) -> dict[str, Any]:
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
        values = {key: _value(file, key, value) for key, value in data.items()}
        file.finish()
    except BadConfiguration as fault:
        raise BadConfiguration(fault.message, fault.remedy, id="bad-config") from None
    return values


def _value(file: YamlFile, key: str, value: object) -> Any:
    """What a setting says; a fault of the file where it says nothing that can be."""
    if key == "mirrors":
        rows = value if isinstance(value, list) and value else [None]
        if not all(isinstance(row, str) and row for row in rows):
            file.fault(key, "must be a list of repositories")
        return tuple(rows)
    if key == "verify":
        return _policy(file, value)
    if key not in _VARIABLES:
        file.fault(key, f"is no setting; there are {', '.join((*_VARIABLES, 'mirrors', 'verify'))}")
    elif not isinstance(value, str) or not value:
        file.fault(key, "must be a string")
    return value


def _policy(file: YamlFile, value: object) -> SignaturePolicy | None:
    from datetime import date, datetime

    from sdrun.core.signing import SignaturePolicy, at_midnight, parse_moment

    if not isinstance(value, dict) or not value:
        file.fault("verify", "must be a mapping with key, or with identity and issuer")
        return None
    words: dict[str, Any] = {}
    for name, text in value.items():
        if name not in ("key", "identity", "issuer", "not_before"):
            file.fault(f"verify.{name}", "is no part of it; there are key, identity, issuer, not_before")
        elif name == "not_before" and isinstance(text, date) and not isinstance(text, datetime):
            words[name] = at_midnight(text)
        elif name != "not_before" and (not isinstance(text, str) or not text):
            file.fault(f"verify.{name}", "must be a string")
        else:
            words[name] = text
    try:
        if "not_before" in words and not isinstance(value["not_before"], date):
            words["not_before"] = parse_moment(str(words["not_before"]))
        elif isinstance(value.get("not_before"), datetime):
            words["not_before"] = parse_moment(value["not_before"].isoformat())
        if words.get("key") and not at_home(words["key"]).is_absolute():
            words["key"] = str(file.path.parent / words["key"])  # beside the file that names it
        return SignaturePolicy(**words)
    except ValueError as fault:
        file.fault("verify", str(fault))
        return None
