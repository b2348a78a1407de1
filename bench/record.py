"""What every measurement here shares: paired timing of whole processes, and one JSON form for the recorded result.

Results lie in bench/results/, or in the folder that OUT_DIR names (for a machine whose checkout is thrown away). Imports
nothing but the standard library, so that a script that needs no more runs on any Python 3.11.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
_MAKERS = ("nvidia", "geforce", "tesla", "quadro")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run of a command took, in seconds: by the clock, and of processors (it and what it waited for)."""

    wall: float
    processor: float


def spent(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Spent:
    """One run of `argv`, output thrown away; a non-zero exit is a failed measurement."""
    begin, used = time.perf_counter(), _processor_seconds()
    subprocess.run(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env={**os.environ, **(environ or {})}
    )
    return Spent(time.perf_counter() - begin, _processor_seconds() - used)


def seconds(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> float:
    """Wall time of one run of `argv`, output thrown away; a non-zero exit is a failed measurement."""
    return spent(argv, environ).wall


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def paired(
    ours: Sequence[str], baseline: Sequence[str], runs: int, environ: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Medians of both commands run in turn (A B A B ...), of their difference, and of the ratio taken pair by pair: pairing
    keeps the ratio meaningful when the machine's speed drifts. Processor time hardly depends on what else runs there."""
    spent(ours, environ), spent(baseline)  # warm file caches
    pairs = [(spent(ours, environ), spent(baseline)) for _ in range(runs)]
    return {
        "seconds": round(statistics.median(a.wall for a, _ in pairs), 4),
        "baseline_seconds": round(statistics.median(b.wall for _, b in pairs), 4),
        "added_seconds": round(statistics.median(a.wall - b.wall for a, b in pairs), 4),
        "ratio": round(statistics.median(a.wall / b.wall for a, b in pairs), 3),
        "processor_seconds": round(statistics.median(a.processor for a, _ in pairs), 4),
        "baseline_processor_seconds": round(statistics.median(b.processor for _, b in pairs), 4),
        "processor_ratio": round(statistics.median(a.processor / b.processor for a, b in pairs), 3),
        "runs": runs,
    }


def out_folder() -> Path:
    """Where results are written, made if need be."""
    folder = Path(os.environ.get("OUT_DIR") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(name: str, figures: Mapping[str, object], device: str | None = None, *, gpu: bool = False) -> Path:
    """Records `figures` with date, machine and versions, and prints them. `device` is what the engine named; with `gpu` the
    GPU, its driver and the container runtime are recorded as `sdrun detect` finds them, and the file's name ends with the
    GPU's."""
    found = gpu_facts() if gpu else {}
    path = out_folder() / (f"{name}_{slug(str(found['device']))}.json" if found else f"{name}.json")
    path.write_text(json.dumps(document(name, figures, device, found), indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return path


def document(
    name: str, figures: Mapping[str, object], device: str | None = None, gpu: Mapping[str, object] | None = None
) -> dict[str, object]:
    """What is recorded of one measurement; `gpu`: of gpu_facts()."""
    return {
        "measured": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
            **({"device": device} if device else {}),
            **(gpu or {}),
        },
        "rerun": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(_general, sys.argv[1:])]),
        "figures": figures,
    }


@functools.cache
def gpu_facts() -> Mapping[str, object]:
    """The first GPU, its driver and the container runtime, as `sdrun detect` finds them. SystemExit where there is no GPU."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    argv = [sys.executable, "-m", "sdrun", "detect", "--json"]
    host = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=environ).stdout)
    if not host["gpus"]:
        sys.exit("this measurement needs an NVIDIA GPU, and sdrun detect finds none")
    first, runtime = host["gpus"][0], host["runtime"] or {"name": "none", "version": ""}
    return {
        "device": first["name"],
        "compute_capability": first["compute_capability"],
        "memory_mib": first["memory_mib"],
        "gpus": len(host["gpus"]),
        "driver": host["driver_version"],
        "cuda_driver": host["cuda_driver"],
        "runtime": f"{runtime['name']} {runtime['version']}".strip(),
    }


def slug(device: str) -> str:
    """A GPU's name as part of a file's.

    >>> slug("NVIDIA H100 80GB HBM3"), slug("NVIDIA GeForce RTX 4090"), slug("NVIDIA A100-SXM4-80GB")
    ('h100', 'rtx_4090', 'a100')
    """
    words = [word for word in re.findall(r"[a-z0-9]+", device.lower()) if word not in _MAKERS]
    return "_".join(words[: 2 if words[:1] in (["rtx"], ["gtx"]) else 1]) or "gpu"


def _general(word: str) -> str:
    """An argument without the places of one machine."""
    return Path(word).name if word.startswith("/") else word


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
