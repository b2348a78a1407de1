"""images/gpu_runs.yaml -> GpuRun values: on which GPUs pruned images have run."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from pathlib import Path

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.rows import fields, matching
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Fields, Malformed
from sdrun.core.gpurun import GpuRun
from sdrun.core.platform import parse_platform
from sdrun.core.target import TargetId
from sdrun.core.version import DriverVersion
from sdrun.resources import images_dir

_SCHEMA = "sdrun.gpu-runs/v1"
_KEYS = (
    *("target", "platform", "engine", "library", "cublas", "device", "compute_capability", "driver", "date"),
    *("selftest", "evidence"),
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
CUBLAS = re.compile(r"[0-9]+(\.[0-9]+){2,3}")
EVIDENCE = re.compile(r"bench/results/[A-Za-z0-9][A-Za-z0-9_.-]*\.json")


@cache
def gpu_runs(path: Path | None = None) -> tuple[GpuRun, ...]:
    """Every recorded run, from images/gpu_runs.yaml unless another file is named; there may be none. Raises BadConfiguration
    with all faults."""
    file = YamlFile(path or images_dir() / "gpu_runs.yaml")
    runs: list[GpuRun] = []
    with file.collecting():
        top = fields(file, file.data, "", ("schema", "runs"))
        if (schema := top.get("schema", str)) != _SCHEMA:
            raise Malformed("schema", f"must be {_SCHEMA!r}, not {schema[:40]!r}")
        for key, value in top.items("runs"):
            with file.collecting():
                run = _run(fields(file, value, key, _KEYS))
                if run in runs:
                    raise Malformed(key, "stands here a second time")
                runs.append(run)
    file.finish()
    return tuple(runs)


def _run(row: Fields) -> GpuRun:
    target = row.parse("target", TargetId.parse)
    capability = row.parse("compute_capability", ComputeCapability.parse)
    if capability not in load_cuda_facts().capabilities:
        raise Malformed(row.key("compute_capability"), f"capabilities.yaml does not know {capability}")
    if target.toolkit is None or (target.arch is not None and target.arch.capability != capability):
        raise Malformed(row.key("target"), f"{target} is not for {capability}: a run on it says nothing of its pruned library")
    return GpuRun(
        target=target,
        platform=row.parse("platform", parse_platform),
        engine=row.get("engine", str),
        library=matching(row, "library", _SHA256, "64 lower-case hex digits, the sha256 of the pruned library"),
        cublas=matching(row, "cublas", CUBLAS, 'a version such as "12.4.5.8"'),
        device=row.get("device", str),
        capability=capability,
        driver=row.parse("driver", DriverVersion.parse),
        date=row.parse("date", _date),
        selftest=row.get("selftest", str),
        evidence=matching(row, "evidence", EVIDENCE, "a file below bench/results"),
    )


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f'must be a date such as "2026-11-23", not {text[:40]!r}') from None
