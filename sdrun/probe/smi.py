"""`nvidia-smi --query-gpu` as CSV. Its human header is never read: its words change between branches (from 610 on it prints
"KMD Version" and "CUDA UMD Version")."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu
from sdrun.core.version import DriverVersion
from sdrun.probe.answer import Answer, driver_version, is_gpu_uuid
from sdrun.probe.libraries import WSL_FOLDER
from sdrun.probe.process import Finished, NotStarted, run_limited

FIELDS = ("index", "uuid", "name", "compute_cap", "driver_version", "memory.total")
_NO_DEVICES = "No devices were found"


@dataclass(frozen=True, slots=True)
class SmiRow:
    """One GPU as nvidia-smi prints it; None where it prints [N/A], [Not Supported] or [Unknown Error]."""

    index: int
    uuid: str | None
    name: str
    capability: ComputeCapability | None
    driver: DriverVersion | None
    memory_mib: int | None


def find_smi(root: Path, environ: Mapping[str, str]) -> str | None:
    """The path of nvidia-smi: on PATH, or where WSL2 has it."""
    return shutil.which("nvidia-smi", path=environ.get("PATH", "")) or shutil.which("nvidia-smi", path=str(root / WSL_FOLDER))


def ask_smi(program: str, environ: Mapping[str, str], limit_s: float) -> Answer:
    """Runs nvidia-smi for at most `limit_s` seconds; old drivers, which do not know `compute_cap`, are asked again without."""
    finished = _query(program, FIELDS, environ, limit_s)
    fields: tuple[str, ...] = FIELDS
    if isinstance(finished, Finished) and finished.code not in (0, None) and "compute_cap" in finished.output:
        fields = tuple(field for field in FIELDS if field != "compute_cap")
        finished = _query(program, fields, environ, limit_s)
    if isinstance(finished, str):
        return Answer("nvidia-smi", answered=False, notes=(finished,))
    rows, other = parse_csv(finished.output, with_capability="compute_cap" in fields)
    if rows:
        return judge(rows, other)
    if finished.code is not None and _NO_DEVICES in finished.output:
        return Answer("nvidia-smi", answered=True, notes=("nvidia-smi finds no device.",))
    said = f': "{other[0]}"' if other else ""
    note = f"nvidia-smi failed ({finished.ending}){said}."
    return Answer("nvidia-smi", answered=False, notes=(note,), hung=finished.code is None)


def _query(program: str, fields: tuple[str, ...], environ: Mapping[str, str], limit_s: float) -> Finished | str:
    argv = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        return run_limited(argv, environ, limit_s)
    except NotStarted as fault:
        return f"nvidia-smi does not start ({fault})."


def parse_csv(text: str, *, with_capability: bool = True) -> tuple[list[SmiRow], list[str]]:
    """The GPUs, and the lines that are none (shortened), of

        0, GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559
        1, [Unknown Error], NVIDIA H100 80GB HBM3, [N/A], 580.159.04, [Unknown Error]

    A name may hold commas; without `with_capability` the fourth column is not there."""
    rows: dict[int, SmiRow] = {}
    other: list[str] = []
    after = 3 if with_capability else 2
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 3 + after or not (cells[0].isascii() and cells[0].isdigit() and len(cells[0]) < 5):
            if line.strip():
                other.append("".join(c for c in line if c.isprintable()).strip().rstrip(".")[:200])
            continue
        name, tail = ", ".join(cells[2:-after]), cells[-after:]
        index, memory = int(cells[0]), tail[-1]
        rows[index] = SmiRow(
            index=index,
            uuid=cells[1] if is_gpu_uuid(cells[1]) else None,
            name="".join(c for c in name if c.isprintable())[:96],
            capability=_capability(tail[0]) if with_capability else None,
            driver=driver_version(tail[-2]),
            memory_mib=int(memory) if memory.isascii() and memory.isdigit() and len(memory) < 10 else None,
        )
    return list(rows.values()), other


def _capability(cell: str) -> ComputeCapability | None:
    try:
        return ComputeCapability.parse(cell)
    except ValueError:
        return None


def judge(rows: list[SmiRow], other: list[str]) -> Answer:
    """The Answer of some rows: GPUs without UUID or capability are left out and noted, as are lines that name a lost GPU."""
    gpus: dict[str, Gpu] = {}
    notes = [f'nvidia-smi says: "{line}".' for line in other]
    for row in rows:
        label = f"GPU {row.index} ({row.name})"
        if row.uuid is None:
            notes.append(f"{label} is left out: nvidia-smi gives it no UUID to hand it over by.")
        elif row.uuid in gpus:
            notes.append(f"{label} is left out: it has the UUID of GPU {gpus[row.uuid].index}, {row.uuid}.")
        elif row.capability is None:
            notes.append(
                f"{label} is left out: this nvidia-smi does not tell its compute capability; update the driver, or set "
                "SDRUN_COMPUTE_CAPABILITY."
            )
        else:
            gpus[row.uuid] = Gpu(row.index, row.uuid, row.name, row.capability, row.memory_mib or 0)
            if row.memory_mib is None:
                notes.append(f"{label} does not say how much memory it has.")
    version = next((row.driver for row in rows if row.driver), None)
    return Answer("nvidia-smi", answered=True, driver_version=version, gpus=tuple(gpus.values()), notes=tuple(notes))
