"""Short ways to write down hosts and indexes in tests, as the JSON documents that the readers take."""

from __future__ import annotations

from typing import Any

from sdrun.core import host as host_facts
from sdrun.core import index as index_facts
from sdrun.core.host import HostFacts
from sdrun.core.index import Index

DOCKER: dict[str, Any] = {"name": "docker", "version": "28.5.2", "cdi_devices": ["nvidia.com/gpu=all"], "nvidia_runtime": True}


def gpu(cc: str, index: int = 0, *, uuid: str | None = None, memory: int = 24564, mig: tuple[int, ...] = ()) -> dict[str, Any]:
    """One GPU; `mig` lists the memory of its slices."""
    return {
        "index": index,
        "uuid": uuid or f"GPU-0000000{index}-aaaa",
        "name": f"NVIDIA {cc}",
        "compute_capability": cc,
        "memory_mib": memory,
        "mig": [{"uuid": f"MIG-{index}-{n}", "profile": f"{n}g.{m}mb", "memory_mib": m} for n, m in enumerate(mig)],
    }


def host_document(*gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A host with those GPUs; driver 580.65.06 (CUDA unknown), Docker with CDI and NVIDIA's runtime, unless said otherwise."""
    document: dict[str, Any] = {
        "schema": "sdrun.host/v1",
        "platform": "linux/amd64",
        "driver_version": "580.65.06",
        "cuda_driver": None,
        "gpus": list(gpus),
        "wsl": False,
        "tegra": None,
        "runtime": DOCKER,
        "probe": "nvml",
    }
    unknown = set(more) - set(document)
    assert not unknown, unknown
    return document | more


def host(*gpus: dict[str, Any], **more: Any) -> HostFacts:
    """`host_document`, read."""
    return host_facts.from_json(host_document(*gpus, **more))


def image(
    target: str, sass: str = "", ptx: str = "", *, zstd: bool = False, platform: str = "linux/amd64", toolkit: str | None = None
) -> dict[str, Any]:
    """One row. The toolkit is read off the target's `cuXYZ` unless given; `sass` and `ptx` are blank-separated archs."""
    if toolkit is None and target.startswith("cu"):
        digits = target[2:].split("-")[0]
        toolkit = f"{digits[:2]}.{digits[2:]}" if digits.isdigit() else None
    return {
        "target": target,
        "image": f"registry.example/sdrun@sha256:{target}-{platform}",
        "tag": f"sdcpp-1-{target}",
        "platform": platform,
        "toolkit": toolkit,
        "sass": sass.split(),
        "ptx": ptx.split(),
        "fatbin_compression": None if toolkit is None else "zstd" if zstd else "lz4",
        "size_bytes": 123456,
    }


CPU = image("cpu")


def index_document(*images: dict[str, Any]) -> dict[str, Any]:
    """An index of those rows."""
    return {"schema": "sdrun.index/v1", "engine": "sdcpp-1", "images": list(images)}


def index(*images: dict[str, Any]) -> Index:
    """`index_document`, read."""
    return index_facts.from_json(index_document(*images))
