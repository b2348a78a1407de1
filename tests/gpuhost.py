"""A host with one GPU, as the probe's document (sdrun.host/v1)."""

from __future__ import annotations

from typing import Any

GPU: dict[str, Any] = {
    "index": 0, "uuid": "GPU-1", "name": "NVIDIA L4", "compute_capability": "8.9", "memory_mib": 24000, "mig": []
}  # fmt: skip
HOST: dict[str, Any] = {
    "schema": "sdrun.host/v1",
    "platform": "linux/amd64",
    "driver_version": "580.65.06",
    "cuda_driver": "13.0",
    "gpus": [GPU],
}
