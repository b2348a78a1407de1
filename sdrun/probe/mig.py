"""MIG devices: the slices of a GPU that NVML and libcuda show."""

from __future__ import annotations

import math
import re

from sdrun.core.host import MigSlice
from sdrun.probe.answer import is_mig_uuid

_PROFILE = re.compile(r"\bMIG ((?:[0-9]{1,2}c\.)?[0-9]{1,2}g\.[0-9]{1,4}gb(?:[+-][a-z.]{1,8})*)", re.ASCII)
_MIB, _GIB = 1 << 20, 1 << 30
UNKNOWN_PROFILE = "unknown"


def profile_in_name(name: object) -> str | None:
    """`"1g.5gb"` from NVML's name of a MIG device, `"NVIDIA A100-SXM4-40GB MIG 1g.5gb"`; None where it holds none."""
    match = _PROFILE.search(name) if isinstance(name, str) else None
    return match[1] if match else None


def profile_of_traits(gpu_slices: object, compute_slices: object, memory_mb: object, gpu_bytes: int) -> str | None:
    """The profile's name as nvidia-smi forms it: GPU slices, and memory in eighths of the GPU's (one slice with 9856 MiB of a
    GPU with 81559 MiB is `1g.10gb`); a compute instance smaller than its GPU instance stands before it (`1c.2g.20gb`)."""
    numbers = (gpu_slices, compute_slices, memory_mb)
    if not all(isinstance(n, int) and 0 < n < 1 << 40 for n in numbers) or gpu_bytes <= 0:
        return None
    gpu, compute, memory = (n for n in numbers if isinstance(n, int))
    eighths = math.ceil(memory * _MIB * 8 / gpu_bytes)
    gigabytes = round(eighths / 8 * math.ceil(gpu_bytes / _GIB))
    return f"{f'{compute}c.' if compute < gpu else ''}{gpu}g.{gigabytes}gb"


def nvml_slices(rows: object, gpu_bytes: int) -> tuple[MigSlice, ...]:
    """The usable slices of one GPU with `gpu_bytes` of memory, from rows such as {"uuid": "MIG-2ac1...", "name": "NVIDIA H100
    80GB HBM3 MIG 1g.10gb", "memory": 10334765056, "gpu_slices": 1, "compute_slices": 1, "memory_mb": 9856}."""
    found: dict[str, MigSlice] = {}
    for row in rows if isinstance(rows, list) else []:
        uuid = row.get("uuid") if isinstance(row, dict) else None
        if not isinstance(uuid, str) or not is_mig_uuid(uuid):
            continue
        traits = profile_of_traits(row.get("gpu_slices"), row.get("compute_slices"), row.get("memory_mb"), gpu_bytes)
        total, megabytes = row.get("memory"), row.get("memory_mb")
        memory = total // _MIB if isinstance(total, int) else megabytes if isinstance(megabytes, int) else 0
        found[uuid] = MigSlice(uuid, profile_in_name(row.get("name")) or traits or UNKNOWN_PROFILE, max(memory, 0))
    return tuple(found.values())


def slice_of_libcuda(name: str, uuid: object, instance: object, memory: int) -> MigSlice | None:
    """The slice that libcuda shows in its GPU's place: there the second version of the UUID call names the MIG device and the
    first its GPU, sixteen bytes in hexadecimal each. (libcuda shows one slice, whatever the GPU is divided into.)"""
    if not isinstance(instance, str) or len(instance) != 32 or instance == uuid:
        return None
    text = f"MIG-{instance[:8]}-{instance[8:12]}-{instance[12:16]}-{instance[16:20]}-{instance[20:]}"
    return MigSlice(text, profile_in_name(name) or UNKNOWN_PROFILE, memory // _MIB) if is_mig_uuid(text) else None
