"""NVML and libcuda, asked in a child process (driver_reader.py); its answers are judged here.

One line of the child's output, as NVML gives it for one GPU (broken in two here):

    {"probe": "nvml", "driver_version": "580.159.04", "cuda": 13000, "count": 1, "gpus": [{"index": 0, "uuid": "GPU-6f2c...",
     "name": "NVIDIA H100 80GB HBM3", "capability": [9, 0], "memory": 85520809984, "mig_mode": 0, "mig": []}]}

An error code stands where a value would: {"probe": "nvml", "error": 18}, {"index": 3, "error": 15}, {"name": {"error": 999}}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, MigSlice
from sdrun.probe.answer import Answer, cuda_version, driver_version, is_gpu_uuid
from sdrun.probe.failures import DMESG, cuda_failure, error_code, gpu_failure, nvml_failure
from sdrun.probe.mig import nvml_slices, slice_of_libcuda
from sdrun.probe.process import Finished, NotStarted, run_limited

MIB = 1 << 20
UNNAMED = "NVIDIA GPU"
READER = Path(__file__).with_name("driver_reader.py")


def ask_driver(
    environ: Mapping[str, str], limit_s: float, hung_limit_s: float = 2.0, meanwhile: Callable[[], None] | None = None
) -> list[Answer]:
    """Asks NVML, then libcuda where NVML does not answer: one Answer for each that was asked, the last one the best. A library
    that crashes or hangs its process is noted, and the next gets a process of its own. Takes at most about `limit_s`, plus
    `hung_limit_s` for libcuda after NVML hung: both talk to the same kernel module, which has then shown that it hangs.
    `meanwhile` is called while the first process works."""
    answers: list[Answer] = []
    waiting = ["nvml", "libcuda"]
    folder = _pynvml_folder()
    if not folder:
        answers.append(
            _silent(waiting.pop(0), "NVML was not asked: the Python package nvidia-ml-py is missing; reinstall sdrun.")
        )
    while waiting:
        try:
            argv = [sys.executable or "", "-I", "-S", str(READER), folder, *waiting]
            finished = run_limited(argv, environ, limit_s, meanwhile=meanwhile)
        except NotStarted as fault:
            note = f"The driver's libraries were not asked: {sys.executable or 'Python'} does not start ({fault})."
            return [*answers, _silent(waiting[0], note)]
        meanwhile = None
        through = parse_rows(finished.output)
        answers += through
        waiting = [probe for probe in waiting if probe not in {answer.probe for answer in through}]
        if any(answer.gpus for answer in through) or (through and finished.code == 0):
            return answers
        if waiting:
            answers.append(_broken(waiting.pop(0), finished, limit_s))
            limit_s = hung_limit_s if finished.code is None else limit_s
    return answers


def _pynvml_folder() -> str:
    found = find_spec("pynvml")
    return str(Path(found.origin).parent) if found is not None and found.origin else ""


def _silent(probe: str, note: str) -> Answer:
    return Answer(probe, answered=False, notes=(note,))


def _broken(probe: str, finished: Finished, limit_s: float) -> Answer:
    library = {"nvml": "NVML"}.get(probe, probe)
    if finished.code is None:
        note = (
            f"{library} did not answer within {limit_s:g} s and was stopped: the driver hangs, or wakes its GPUs for each call "
            f"(`sudo systemctl enable --now nvidia-persistenced` ends that); {DMESG}, and restart the machine if there are any."
        )
    else:
        note = f"{library} crashed ({finished.ending}): reinstall the NVIDIA driver and restart the machine."
    return Answer(probe, answered=False, notes=(note,), hung=finished.code is None)


def parse_rows(output: str) -> list[Answer]:
    """The child's output, one line a probe (sample above); lines that are none of its rows are passed over."""
    parsers: dict[object, Callable[[dict[str, object]], Answer]] = {"nvml": parse_nvml, "libcuda": parse_libcuda}
    answers: dict[str, Answer] = {}
    for line in output.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        probe = row.get("probe") if isinstance(row, dict) else None
        if isinstance(probe, str) and probe in parsers and probe not in answers:
            answers[probe] = parsers[probe](row)
    return list(answers.values())


def parse_nvml(row: dict[str, object]) -> Answer:
    """NVML's row (sample above) as an Answer; a GPU that cannot be used is left out and noted."""
    version = driver_version(row.get("driver_version"))
    failed = error_code(row)
    if failed is None:
        failed = error_code(row.get("count"))
    if failed is not None:
        return Answer("nvml", answered=False, driver_version=version, notes=(nvml_failure(failed),))
    notes: list[str] = []
    if version is None:
        notes.append("NVML gives no driver version that can be read.")
    if (cuda := cuda_version(row.get("cuda"))) is None:
        notes.append(
            "NVML cannot tell which CUDA version the driver speaks (libcuda.so.1 is missing or does not fit): "
            "reinstall the NVIDIA driver if a run fails."
        )
    gpus = _gpus(row, _nvml_gpu, notes)
    return Answer("nvml", answered=True, driver_version=version, cuda_driver=cuda, gpus=gpus, notes=tuple(notes))


def parse_libcuda(row: dict[str, object]) -> Answer:
    """libcuda's row as an Answer: {"probe": "libcuda", "cuda": 13000, "count": 1, "gpus": [{"index": 0, "uuid": "6f2c...",
    "instance": "6f2c...", "name": "Orin", "capability": [8, 7], "memory": 32895762432, "integrated": 1}]}."""
    failed = row.get("error")
    if failed is not None or not isinstance(row.get("count"), int):
        return _silent("libcuda", cuda_failure(failed))
    notes: list[str] = []
    gpus = _gpus(row, _libcuda_gpu, notes)
    return Answer("libcuda", answered=True, cuda_driver=cuda_version(row.get("cuda")), gpus=gpus, notes=tuple(notes))


def _gpus(row: dict[str, object], parser: Callable[[int, dict[str, object]], Gpu | str], notes: list[str]) -> tuple[Gpu, ...]:
    """The GPUs that `parser` accepts; what it says of the others is added to `notes`."""
    found: dict[str, Gpu] = {}
    listed = row.get("gpus")
    for place, item in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(item, dict):
            continue
        outcome = parser(place, item)
        if isinstance(outcome, str):
            notes.append(outcome)
        elif outcome.uuid in found:
            notes.append(f"GPU {place} is left out: it has the UUID of GPU {found[outcome.uuid].index}, {outcome.uuid}.")
        else:
            found[outcome.uuid] = outcome
            if not outcome.memory_mib:
                notes.append(f"GPU {place} ({outcome.name}) does not say how much memory it has.")
    return tuple(found.values())


def _nvml_gpu(index: int, row: dict[str, object]) -> Gpu | str:
    name = _name(row)
    for value in (row, row.get("uuid"), row.get("capability")):
        if (code := error_code(value)) is not None:
            return gpu_failure(index, name, code)
    total = row.get("memory")
    memory = total if _is_number(total) else 0
    mig: tuple[MigSlice, ...] = nvml_slices(row.get("mig"), memory)
    if row.get("mig_mode") == 1 and not mig:
        return (
            f"GPU {index} ({name}) is left out: it is in MIG mode without a usable MIG device; create one "
            f"(`sudo nvidia-smi mig -i {index} -lgip` lists what fits) or leave it (`sudo nvidia-smi -i {index} -mig 0`)."
        )
    return _gpu(index, row.get("uuid"), name, row.get("capability"), memory // MIB, mig)


def _libcuda_gpu(index: int, row: dict[str, object]) -> Gpu | str:
    name = _name(row)
    if "error" in row:
        return f"GPU {index} is left out: {cuda_failure(row['error'])}"
    total = row.get("memory")
    memory = total if _is_number(total) else 0
    instance = slice_of_libcuda(name, row.get("uuid"), row.get("instance"), memory)
    return _gpu(index, _uuid(row.get("uuid")), name, row.get("capability"), memory // MIB, (instance,) if instance else ())


def _gpu(index: int, uuid: object, name: str, capability: object, memory_mib: int, mig: tuple[MigSlice, ...]) -> Gpu | str:
    if not isinstance(uuid, str) or not is_gpu_uuid(uuid):
        return f"GPU {index} ({name}) is left out: the driver gives it no UUID to hand it over by."
    pair = capability if isinstance(capability, list) and len(capability) == 2 else [None, None]
    try:
        found = ComputeCapability.parse(f"{pair[0]}.{pair[1]}")
    except ValueError:
        return f"GPU {index} ({name}) is left out: the driver does not tell its compute capability."
    return Gpu(index, uuid, name, found, memory_mib, mig)


def _name(row: dict[str, object]) -> str:
    """The name, printable and of a sane length, so that it can stand in a message."""
    name = row.get("name")
    text = "".join(c for c in name if c.isprintable()).strip()[:96] if isinstance(name, str) else ""
    return text or UNNAMED


def _uuid(text: object) -> str | None:
    """`GPU-6f2c...` from libcuda's sixteen bytes in hexadecimal."""
    if not isinstance(text, str) or len(text) != 32:
        return None
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
