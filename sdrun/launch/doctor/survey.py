"""The surroundings of this process: the real runtime, the real probes, the files that were named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sdrun.catalog.config import Settings, load_settings
from sdrun.core.host import HostFacts
from sdrun.launch.doctor.surroundings import Surroundings
from sdrun.runtime.protocol import ContainerRuntime

PROBE_LIMIT_S = 5.0


def survey(
    settings: Settings | None = None,
    index_file: str | None = None,
    host_file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Surroundings:
    """Where to look. Files that are named are read at once: raises BadConfiguration where one is wrong."""
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.catalog.indexfile import read_index
    from sdrun.launch.runlog import state_folder
    from sdrun.probe.detect import detect
    from sdrun.probe.hostfile import read_host_facts
    from sdrun.probe.overrides import apply_overrides, current_host
    from sdrun.resources import cache_root
    from sdrun.runtime import connect

    chosen = settings or load_settings(environ=environ)
    given = read_host_facts(host_file) if host_file else None
    wanted = index_file or chosen.index

    def find_host(runtime: ContainerRuntime | None) -> HostFacts:
        if given is not None:
            return apply_overrides(given, environ)
        facts = runtime.facts() if runtime is not None else None
        if environ.get("SDRUN_HOST_FACTS"):
            return current_host(environ, facts)
        return apply_overrides(detect(Path("/"), environ, facts, limit_s=PROBE_LIMIT_S), environ)

    return Surroundings.of(
        environ=environ,
        open_runtime=lambda: connect(chosen.runtime, environ),
        find_host=find_host,
        find_cuda=load_cuda_facts,
        cache=cache_root(),
        state=state_folder(),
        published=read_index(wanted) if wanted else None,
        from_file=given is not None,
        registry=chosen.registry,
        data_folder=lambda runtime: data_folder(runtime, environ),
    )


def data_folder(runtime: ContainerRuntime, environ: Mapping[str, str], root: Path = Path("/")) -> Path | None:
    """Where a runtime behind a socket of this machine keeps its images by default, or by Docker's daemon.json."""
    from sdrun.runtime.client import ApiRuntime

    if not isinstance(runtime, ApiRuntime) or runtime.endpoint.socket is None:
        return None
    rootless = "/run/user/" in str(runtime.endpoint.socket)
    home = Path(environ.get("HOME", "/root"))
    if runtime.name == "podman":
        return home / ".local/share/containers/storage" if rootless else Path("/var/lib/containers/storage")
    return home / ".local/share/docker" if rootless else docker_root(root)


def docker_root(root: Path) -> Path:
    """`data-root` of /etc/docker/daemon.json, else Docker's default."""
    try:
        configured = json.loads((root / "etc/docker/daemon.json").read_text(encoding="utf-8")).get("data-root")
    except (OSError, ValueError, AttributeError, RecursionError):
        configured = None
    return Path(configured) if isinstance(configured, str) else Path("/var/lib/docker")
