"""The program that talks to the driver's libraries, run as a process of its own because they may hang or crash.

Run by file path under `python -I -S`, with the standard library and pynvml alone: starting it costs a few hundredths of a
second. Arguments: the folder that holds pynvml.py (or an empty string), then the names of the probes to try in order. Each
prints one JSON line when it is through, and the first that answers is the last: what a later one does to the process cannot
take that away. Values are printed as the libraries gave them; sdrun.probe.driver judges them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

_NOT_SUPPORTED, _NOT_FOUND, _FUNCTION_NOT_FOUND = 3, 6, 13  # NVML_ERROR_*
_CC_MAJOR, _CC_MINOR, _INTEGRATED = 75, 76, 18  # CU_DEVICE_ATTRIBUTE_*


def read_nvml() -> dict[str, Any]:
    """`{"error": CODE}` when NVML does not start, else versions and one row a GPU; a row of a GPU that fails has `error`."""
    if "ctypes.util" not in sys.modules:
        # pynvml imports find_library and does not call it on Linux; the module behind it would take 10 of the 40 ms.
        stand_in = ModuleType("ctypes.util")
        vars(stand_in)["find_library"] = lambda name: None
        sys.modules["ctypes.util"] = stand_in
    import pynvml

    def value(function: str, *arguments: object) -> Any:
        """The call's value, `{"error": code}` when NVML refuses, None when what it gave is no text."""
        try:
            return getattr(pynvml, function)(*arguments)
        except pynvml.NVMLError as fault:
            return {"error": fault.value}
        except UnicodeDecodeError:
            return None

    def read_gpu(index: int) -> dict[str, Any]:
        handle = value("nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, dict):
            return {"index": index, **handle}
        memory = value("nvmlDeviceGetMemoryInfo", handle)
        mode = value("nvmlDeviceGetMigMode", handle)
        return {
            "index": index,
            "uuid": value("nvmlDeviceGetUUID", handle),
            "name": value("nvmlDeviceGetName", handle),
            "capability": value("nvmlDeviceGetCudaComputeCapability", handle),
            "memory": memory if isinstance(memory, dict) else memory.total,
            "mig_mode": mode if isinstance(mode, dict) else mode[0],
            "mig": read_slices(handle) if isinstance(mode, list) and mode[0] == 1 else [],
        }

    def read_slices(handle: object) -> list[dict[str, Any]]:
        count = value("nvmlDeviceGetMaxMigDeviceCount", handle)
        rows = []
        for i in range(count if isinstance(count, int) else 0):
            mig = value("nvmlDeviceGetMigDeviceHandleByIndex", handle, i)
            if isinstance(mig, dict):
                if mig["error"] != _NOT_FOUND:  # an empty place is no fault
                    rows.append(mig)
                continue
            memory = value("nvmlDeviceGetMemoryInfo", mig)
            traits = value("nvmlDeviceGetAttributes_v2", mig)
            rows.append(
                {
                    "uuid": value("nvmlDeviceGetUUID", mig),
                    "name": value("nvmlDeviceGetName", mig),
                    "memory": memory if isinstance(memory, dict) else memory.total,
                    "gpu_slices": None if isinstance(traits, dict) else traits.gpuInstanceSliceCount,
                    "compute_slices": None if isinstance(traits, dict) else traits.computeInstanceSliceCount,
                    "memory_mb": None if isinstance(traits, dict) else traits.memorySizeMB,
                }
            )
        return rows

    started = value("nvmlInit")
    if started is not None:
        return dict(started)
    cuda = value("nvmlSystemGetCudaDriverVersion_v2")
    if cuda == {"error": _FUNCTION_NOT_FOUND}:
        cuda = value("nvmlSystemGetCudaDriverVersion")
    count = value("nvmlDeviceGetCount")
    return {
        "driver_version": value("nvmlSystemGetDriverVersion"),
        "cuda": cuda,
        "count": count,
        "gpus": [read_gpu(i) for i in range(count if isinstance(count, int) else 0)],
    }


def read_libcuda() -> dict[str, Any]:
    """`{"error": CODE}` when libcuda does not start (`"missing"`: there is none), else its version and one row a GPU."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"error": "missing"}

    def call(function: str, *arguments: object) -> int:
        try:
            return int(getattr(cuda, function)(*arguments))
        except AttributeError:
            return -1

    def number(function: str, *arguments: object) -> int | None:
        found = ctypes.c_int()
        return found.value if call(function, ctypes.byref(found), *arguments) == 0 else None

    def uuid(function: str, device: ctypes.c_int) -> str | None:
        found = (ctypes.c_ubyte * 16)()
        return bytes(found).hex() if call(function, ctypes.byref(found), device) == 0 else None

    def read_gpu(index: int) -> dict[str, Any]:
        device = ctypes.c_int()
        if code := call("cuDeviceGet", ctypes.byref(device), index):
            return {"index": index, "error": code}
        name = ctypes.create_string_buffer(128)
        named = call("cuDeviceGetName", name, 128, device) == 0
        memory = ctypes.c_size_t()
        measured = call("cuDeviceTotalMem_v2", ctypes.byref(memory), device) == 0
        return {
            "index": index,
            "uuid": uuid("cuDeviceGetUuid", device),
            "instance": uuid("cuDeviceGetUuid_v2", device),
            "name": name.value.decode("utf-8", "replace") if named else None,
            "capability": [number("cuDeviceGetAttribute", which, device) for which in (_CC_MAJOR, _CC_MINOR)],
            "memory": memory.value if measured else None,
            "integrated": number("cuDeviceGetAttribute", _INTEGRATED, device),
        }

    if code := call("cuInit", 0):
        return {"error": code, "cuda": number("cuDriverGetVersion")}
    count = number("cuDeviceGetCount")
    return {"cuda": number("cuDriverGetVersion"), "count": count, "gpus": [read_gpu(i) for i in range(count or 0)]}


def enough(row: dict[str, Any]) -> bool:
    """True where a later probe could add nothing: this one got through, and shows a usable GPU, or that there is none.
    (NVML on a Tegra may know the GPU and not its UUID, which libcuda then tells.)"""
    gpus = row.get("gpus", [])
    usable = [gpu for gpu in gpus if str(gpu.get("uuid")).startswith("GPU-") and not isinstance(gpu["capability"], dict)]
    return "error" not in row and isinstance(row.get("count"), int) and (bool(usable) or not gpus)


READERS: dict[str, Callable[[], dict[str, Any]]] = {"nvml": read_nvml, "libcuda": read_libcuda}


def main(arguments: list[str]) -> NoReturn:
    """Prints one JSON line a probe and ends the process."""
    folder, probes = arguments[0], arguments[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of the driver's library leaves no core file
    sys.dont_write_bytecode = True
    if folder:
        sys.path.append(folder)  # at the end: nothing beside pynvml.py may stand before the standard library
    # The libraries may print: what they say goes nowhere, and the answer keeps stdout to itself.
    answers = os.dup(1)
    os.dup2(2, 1)
    for probe in probes:
        row = {"probe": probe, **READERS[probe]()}
        os.write(answers, json.dumps(row).encode() + b"\n")
        if enough(row):
            break
    os._exit(0)  # the libraries' own clean-up may hang or crash, and the kernel cleans up as well


if __name__ == "__main__":
    main(sys.argv[1:])
