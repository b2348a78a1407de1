"""What the error codes of NVML and libcuda mean to the owner of the machine, each with the one thing to do.

Sources: nvml.h (nvmlReturn_t) and cuda.h (CUresult). A code that is not listed keeps its number in the sentence.
"""

from __future__ import annotations

DMESG = "look for NVRM and Xid lines in `sudo dmesg`"

_NVML: dict[int, str] = {
    4: "this user may not talk to the NVIDIA driver; give it access to /dev/nvidia* (group video or render), or run as root",
    9: "the kernel module of the NVIDIA driver is not loaded; load it with `sudo modprobe nvidia`, or reinstall the driver "
    "for the running kernel where that fails",
    10: "the driver's answer took too long; " + DMESG,
    11: "the interrupts of a GPU do not arrive; " + DMESG,
    12: "libnvidia-ml.so.1 is missing; install the NVIDIA driver with its libraries",
    13: "libnvidia-ml.so.1 lacks a function of NVML; update the NVIDIA driver",
    17: "the operating system blocks the driver; " + DMESG,
    18: "the driver's kernel module and libraries are of different versions, as after an update without a restart; "
    "restart the machine",
    20: "there was not enough memory to ask; free some",
}

_GPU: dict[int, str] = {
    4: "this user, or this container, may not use it",
    8: "its power cables are not connected; connect them",
    11: "its interrupts do not arrive; " + DMESG,
    15: f"it has fallen off the bus; {DMESG}, check its power and its seat, and restart the machine",
    16: "it must be reset; stop what uses it and run `sudo nvidia-smi --gpu-reset -i {index}`, or restart the machine",
}

_CUDA: dict[int, str] = {
    2: "libcuda had not enough memory to start; free some",
    34: "libcuda.so.1 is the stub for building, not the driver's; take its folder out of LD_LIBRARY_PATH",
    46: "all GPUs are busy or barred to this process; see the compute mode in `nvidia-smi -q -d COMPUTE`",
    100: "libcuda finds no GPU",
    802: "the GPUs are not ready, as on machines with NVSwitch before their fabric manager runs; "
    "start it with `sudo systemctl start nvidia-fabricmanager`",
    803: "libcuda.so.1 and the driver's kernel module are of different versions; restart the machine",
    804: "a libcuda.so.1 for forward compatibility is in the way, which this GPU does not allow; "
    "take the cuda-compat folder out of LD_LIBRARY_PATH",
}


def error_code(value: object) -> int | None:
    """The code in an answer of the form {"error": 18}, or None where it is no error."""
    code = value.get("error") if isinstance(value, dict) else None
    return code if isinstance(code, int) else None


def nvml_failure(code: int) -> str:
    """The sentence for NVML as a whole failing with `code`."""
    known = _NVML.get(code, f"the driver does not work; {DMESG}, and restart the machine")
    return f"NVML failed with code {code}: {known}."


def gpu_failure(index: int, name: str, code: int) -> str:
    """The sentence for one GPU failing with NVML's `code`; the others stay usable."""
    known = _GPU.get(code, f"the driver cannot use it; {DMESG}").format(index=index)
    return f"GPU {index} ({name}) is left out, NVML code {code}: {known}."


def cuda_failure(code: object) -> str:
    """The sentence for libcuda failing with `code` (`"missing"`: there is no libcuda.so.1)."""
    if code == "missing":
        return "libcuda.so.1 is missing: install the NVIDIA driver with its libraries."
    if not isinstance(code, int):
        return "libcuda's answer cannot be read."
    return f"libcuda failed with code {code}: {_CUDA.get(code, f'the driver does not work; {DMESG}')}."
