"""Host facts, schema `sdrun.host/v1`: what was found out about one machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Fields, Malformed, check, describe, parse_at, printable
from sdrun.core.platform import parse_platform
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease

SCHEMA = "sdrun.host/v1"


@dataclass(frozen=True, slots=True)
class MigSlice:
    """One MIG instance of a GPU; `memory_mib` is its own, its capability is its parent's."""

    uuid: str
    profile: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical GPU. `index` is NVML's (PCI bus order)."""

    index: int
    uuid: str
    name: str
    compute_capability: ComputeCapability
    memory_mib: int
    mig: tuple[MigSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """The container runtime as it describes itself. `cdi_devices`: fully qualified names it can hand over
    (`nvidia.com/gpu=GPU-...`); `nvidia_runtime`: NVIDIA's runtime or hook is registered, so that `--gpus` works."""

    name: str
    version: str
    cdi_devices: tuple[str, ...] = ()
    nvidia_runtime: bool = False


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything `resolve` may know about a machine. `platform`: `linux/amd64`; `tegra`: an L4T release (`"36.4"`) or None;
    `probe`: which probe answered (`nvml`, `libcuda`, `nvidia-smi`, `sysfs`, `none`)."""

    platform: str
    driver_version: DriverVersion | None = None
    cuda_driver: CudaVersion | None = None
    gpus: tuple[Gpu, ...] = ()
    wsl: bool = False
    tegra: str | None = None
    runtime: RuntimeFacts | None = None
    probe: str = "none"
    notes: tuple[str, ...] = field(default=(), compare=False)  # what the probes noticed; said to people, not decided on

    @property
    def l4t(self) -> L4tRelease | None:
        """`tegra` as a comparable release; raises ValueError where it is none (from_json lets none such in)."""
        return None if self.tegra is None else L4tRelease.parse(self.tegra)


def from_json(document: object) -> HostFacts:
    """HostFacts from a parsed JSON document; raises Malformed naming the key."""
    top = Fields(document)
    if (schema := top.get("schema", str)) != SCHEMA:
        raise Malformed("schema", f"must be {SCHEMA!r}, not {schema[:40]!r}")
    gpus = tuple(_gpu(Fields(value, path)) for path, value in top.items("gpus"))
    uuids = [uuid for gpu in gpus for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig))]
    for name, seen in (("index", [gpu.index for gpu in gpus]), ("uuid", uuids)):
        if len(set(seen)) != len(seen):
            raise Malformed("gpus", f"two of them have the same {name}")
    release = top.find_parsed("tegra", L4tRelease.parse)
    return HostFacts(
        platform=top.parse("platform", parse_platform),
        driver_version=top.find_parsed("driver_version", DriverVersion.parse),
        cuda_driver=top.find_parsed("cuda_driver", CudaVersion.parse),
        gpus=gpus,
        wsl=top.find("wsl", bool) or False,
        tegra=str(release) if release else None,
        runtime=_runtime(top),
        probe=top.find_parsed("probe", printable) or "none",
        notes=_notes(document),
    )


def _notes(document: object) -> tuple[str, ...]:
    """What a probe noted. No key of the schema, so nothing in it is refused; what cannot be printed is left out."""
    notes = document.get("notes") if isinstance(document, dict) else None
    values = notes if isinstance(notes, list) else []
    return tuple(value for value in values if isinstance(value, str) and value.isprintable() and value)


def _gpu(row: Fields) -> Gpu:
    return Gpu(
        index=_natural(row, "index"),
        uuid=row.text("uuid"),
        name=row.text("name"),
        compute_capability=row.parse("compute_capability", ComputeCapability.parse),
        memory_mib=_natural(row, "memory_mib"),
        mig=tuple(
            MigSlice(item.text("uuid"), item.text("profile"), _natural(item, "memory_mib"))
            for item in (Fields(value, path) for path, value in row.items("mig", optional=True))
        ),
    )


def _natural(row: Fields, name: str) -> int:
    value = row.get(name, int)
    if value < 0:
        raise Malformed(row.key(name), f"must not be negative, is {describe(value)}")
    return value


def _runtime(top: Fields) -> RuntimeFacts | None:
    document = top.find("runtime", dict)
    if document is None:
        return None
    row = Fields(document, "runtime")
    devices = [(path, check(value, str, path)) for path, value in row.items("cdi_devices", optional=True)]
    return RuntimeFacts(
        name=row.text("name"),
        version=parse_at(printable, version, row.key("version")) if (version := row.find("version", str)) else "",
        cdi_devices=tuple(parse_at(printable, name, path) for path, name in devices),
        nvidia_runtime=row.find("nvidia_runtime", bool) or False,
    )


def to_json(host: HostFacts) -> dict[str, object]:
    """The document that `from_json` reads back to an equal value."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "platform": host.platform,
        "driver_version": str(host.driver_version) if host.driver_version else None,
        "cuda_driver": str(host.cuda_driver) if host.cuda_driver else None,
        "gpus": [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "name": gpu.name,
                "compute_capability": str(gpu.compute_capability),
                "memory_mib": gpu.memory_mib,
                "mig": [{"uuid": s.uuid, "profile": s.profile, "memory_mib": s.memory_mib} for s in gpu.mig],
            }
            for gpu in host.gpus
        ],
        "wsl": host.wsl,
        "tegra": host.tegra,
        "runtime": host.runtime
        and {
            "name": host.runtime.name,
            "version": host.runtime.version,
            "cdi_devices": list(host.runtime.cdi_devices),
            "nvidia_runtime": host.runtime.nvidia_runtime,
        },
        "probe": host.probe,
    }
    if host.notes:
        document["notes"] = list(host.notes)
    return document
