"""What every measurement here shares: paired timing of whole processes, and one JSON form for the recorded result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def seconds(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> float:
    """Wall time of one run of `argv`, output thrown away; a non-zero exit is a failed measurement."""
    begin = time.perf_counter()
    subprocess.run(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env={**os.environ, **(environ or {})}
    )
    return time.perf_counter() - begin


def paired(
    ours: Sequence[str], baseline: Sequence[str], runs: int, environ: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Medians of both commands run in turn (A B A B ...), of their difference, and of the ratio taken pair by pair: pairing
    keeps the ratio meaningful when the machine's speed drifts."""
    seconds(ours, environ), seconds(baseline)  # warm file caches
    pairs = [(seconds(ours, environ), seconds(baseline)) for _ in range(runs)]
    return {
        "seconds": round(statistics.median(a for a, _ in pairs), 4),
        "baseline_seconds": round(statistics.median(b for _, b in pairs), 4),
        "added_seconds": round(statistics.median(a - b for a, b in pairs), 4),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "runs": runs,
    }


def write(name: str, figures: Mapping[str, object], device: str | None = None) -> Path:
    """Records `figures` with date, machine and versions under bench/results/."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "measured": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
            **({"device": device} if device else {}),
        },
        "rerun": f"python bench/{Path(sys.argv[0]).name}",
        "figures": figures,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
