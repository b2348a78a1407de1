"""What one probe found out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdrun.core.host import Gpu
from sdrun.core.version import CudaVersion, DriverVersion

_GPU_UUID = re.compile(r"GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Since driver 470 a MIG device has a UUID of its own; before, it was MIG-<uuid of the GPU>/<gpu instance>/<compute instance>.
_MIG_UUID = re.compile(r"MIG-(?:GPU-)?[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?:/[0-9]{1,3}/[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Answer:
    """One probe's findings. `answered`: the probe got through to the driver, so that an empty `gpus` means that there is no
    usable GPU; False: it knows at most a driver version. `hung`: it had to be stopped. `notes` are whole sentences."""

    probe: str
    answered: bool
    driver_version: DriverVersion | None = None
    cuda_driver: CudaVersion | None = None
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    hung: bool = False


def is_gpu_uuid(text: object) -> bool:
    """True for `GPU-` and a UUID, the form in which GPUs are handed to containers."""
    return isinstance(text, str) and _GPU_UUID.fullmatch(text) is not None


def is_mig_uuid(text: object) -> bool:
    """True for `MIG-` and a UUID, or the older form that names GPU, GPU instance and compute instance."""
    return isinstance(text, str) and _MIG_UUID.fullmatch(text) is not None


def cuda_version(number: object) -> CudaVersion | None:
    """CudaVersion of CUDA's own integer, 1000 * major + 10 * minor (`13000` is 13.0); None for what is not one.

    Source: CUDA driver API, cuDriverGetVersion."""
    if not isinstance(number, int) or isinstance(number, bool) or not 1000 <= number < 1_000_000:
        return None
    return CudaVersion(number // 1000, number % 1000 // 10)


def driver_version(text: object) -> DriverVersion | None:
    """DriverVersion of what a driver calls itself, or None where that is no version."""
    try:
        return DriverVersion.parse(text.strip()) if isinstance(text, str) else None
    except ValueError:
        return None
