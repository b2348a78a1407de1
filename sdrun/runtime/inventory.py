"""Facts about a runtime out of its own answers (`GET /version`, `GET /info`), whoever asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrun.core.host import RuntimeFacts
from sdrun.runtime.cdi import DEFAULT_FOLDERS, devices_in


def is_podman(version: Mapping[str, Any]) -> bool:
    """True if the answer to `GET /version` is Podman's, also behind /var/run/docker.sock, where podman-docker puts it."""
    return "Podman Engine" in (str(row.get("Name")) for row in version.get("Components") or ())


def docker_facts(version: str, info: Mapping[str, Any]) -> RuntimeFacts:
    """Engine 28.2 (API 1.50) and later list the CDI devices they found. 25 to 28.1 only name the folders they would read, so
    those are read here; before 25 there is no CDI."""
    discovered = info.get("DiscoveredDevices")
    if discovered is not None:
        devices = tuple(str(row["ID"]) for row in discovered if row.get("Source") == "cdi")
    else:
        devices = devices_in(info.get("CDISpecDirs") or ())
    return RuntimeFacts("docker", version, devices, nvidia_runtime="nvidia" in (info.get("Runtimes") or {}))


def podman_facts(version: str) -> RuntimeFacts:
    """Podman reads CDI specifications itself at each start and lists none, so the folders are read here. It has no hook of
    NVIDIA's: GPUs come by CDI."""
    return RuntimeFacts("podman", version, devices_in(DEFAULT_FOLDERS), nvidia_runtime=False)
