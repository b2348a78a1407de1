"""Facts set by hand: SDRUN_HOST_FACTS, SDRUN_COMPUTE_CAPABILITY, SDRUN_DRIVER_VERSION. Checked like any facts, and said aloud
where they contradict what the machine shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, HostFacts
from sdrun.core.version import DriverVersion
from sdrun.errors import BadConfiguration
from sdrun.probe.detect import RuntimeSource, detect
from sdrun.probe.hostfile import read_host_facts
from sdrun.probe.machine import read_machine
from sdrun.probe.sysfs import read_driver_version

FACTS, CAPABILITY, DRIVER = "SDRUN_HOST_FACTS", "SDRUN_COMPUTE_CAPABILITY", "SDRUN_DRIVER_VERSION"
OVERRIDE_UUID = "GPU-override"

T = TypeVar("T")


def current_host(environ: Mapping[str, str] = os.environ, runtime: RuntimeSource = None, root: Path = Path("/")) -> HostFacts:
    """The facts to decide on: those of SDRUN_HOST_FACTS where it is set (nothing is probed then, since it may be there because
    a probe hangs), else the detected ones; the other two variables on top. `runtime`, or what it returns where it is a function
    (see `detect`), fills a gap in it. Raises BadConfiguration (id `bad-host-facts`) naming file and key, or the variable."""
    if not environ.get(FACTS):
        return apply_overrides(detect(root, environ, runtime), environ)
    host = read_host_facts(environ[FACTS])
    asked = host.runtime or (runtime() if callable(runtime) else runtime)
    host = replace(host, runtime=asked, notes=(*host.notes, *_file_against_machine(host, environ[FACTS], root)))
    return apply_overrides(host, environ)


def _file_against_machine(host: HostFacts, file: str, root: Path) -> list[str]:
    """Compared with what is read from files alone: the probes that talk to the driver are not started."""
    notes = [f"The facts come from {file} ({FACTS}), not from this machine."]
    machine, kernel = read_machine(root), read_driver_version(root)
    if machine.platform != host.platform:
        notes.append(f"{file} says platform {host.platform}; this machine is {machine.platform}.")
    if kernel != host.driver_version:
        notes.append(f"{file} says driver {host.driver_version or 'none'}; this machine runs {kernel or 'none'}.")
    return notes


def apply_overrides(host: HostFacts, environ: Mapping[str, str]) -> HostFacts:
    """`host` with SDRUN_COMPUTE_CAPABILITY for every GPU (one is invented where there is none) and SDRUN_DRIVER_VERSION, each
    with a note. With another driver, its CUDA version is no longer known and becomes None. Raises BadConfiguration."""
    capability = _value(environ, CAPABILITY, ComputeCapability.parse)
    if capability is not None:
        host = _with_capability(host, capability)
    version = _value(environ, DRIVER, DriverVersion.parse)
    return host if version is None else _with_driver(host, version)


def _value(environ: Mapping[str, str], name: str, parser: Callable[[str], T]) -> T | None:
    text = environ.get(name, "").strip()
    try:
        return parser(text) if text else None
    except ValueError as fault:
        raise BadConfiguration(f"{name}: {fault}", f"Correct or unset {name}.", id="bad-host-facts") from None


def _with_capability(host: HostFacts, capability: ComputeCapability) -> HostFacts:
    if not host.gpus:
        invented = Gpu(0, OVERRIDE_UUID, f"GPU of {CAPABILITY}", capability, 0)
        note = f"No GPU was found; {CAPABILITY}={capability} stands for one, whose memory is not known."
        return replace(host, gpus=(invented,), notes=(*host.notes, note))
    notes = [
        f"{CAPABILITY}={capability} is taken for GPU {gpu.index} ({gpu.name}), which says {gpu.compute_capability}."
        for gpu in host.gpus
        if gpu.compute_capability != capability
    ]
    gpus = tuple(replace(gpu, compute_capability=capability) for gpu in host.gpus)
    return replace(host, gpus=gpus, notes=(*host.notes, *notes))


def _with_driver(host: HostFacts, version: DriverVersion) -> HostFacts:
    if host.driver_version == version:
        return host
    found = host.driver_version
    note = (
        f"{DRIVER}={version} is taken; the running driver says {found}."
        if found
        else f"{DRIVER}={version} is taken; no driver was found."
    )
    return replace(host, driver_version=version, cuda_driver=None, notes=(*host.notes, note))
