"""A self-test on a GPU as evidence: the row of images/gpu_runs.yaml that it stands for, and the document behind it."""

from __future__ import annotations

from datetime import date
from pathlib import PurePath

from sdrun.core.host import Gpu
from sdrun.core.labels import ENGINE
from sdrun.errors import UsageProblem
from sdrun.launch.selftest.report import Result

SCHEMA = "sdrun.gpu-run/v1"


def check_recordable(result: Result) -> None:
    """Raises UsageProblem (`not-recordable`) where the result proves nothing of a library: drawn on the CPU, not all probes, or
    by code that was made for another arch than the GPU's. That every picture is right is its caller's to see to."""
    path = result.chosen.plan.code_path
    if result.backend != "cuda" or path != "sass-exact":
        where = "on the CPU" if result.backend != "cuda" else f"by {path} code"
        raise _not_recordable(f"it drew {where}, and a recorded run is one by machine code for exactly that GPU")
    if len(result.readings) < len(result.suite.probes):
        raise _not_recordable(f"{len(result.readings)} of {len(result.suite.probes)} pictures were drawn")


def _not_recordable(why: str) -> UsageProblem:
    return UsageProblem(
        f"the run is not for recording: {why}",
        "Draw all pictures on a GPU that the image is for: sdrun selftest --image IMAGE --gpu auto --record-run FILE "
        "--cublas VERSION",
        id="not-recordable",
    )


def document(result: Result, library: str, cublas: str, file: PurePath, today: date) -> dict[str, object]:
    """The document to record, schema sdrun.gpu-run/v1: the self-test's, and as `run` the row for images/gpu_runs.yaml.
    `library`: sha256 of the pruned library in the image; `cublas`: the version it was made of; `file`: where the document will
    be."""
    chosen, gpu = result.chosen, _gpu(result)
    labels = chosen.local.labels if chosen.local is not None else {}
    run = {
        "target": chosen.plan.target,
        "platform": chosen.host.platform,
        "engine": labels.get(ENGINE, ""),
        "library": library,
        "cublas": cublas,
        "device": gpu.name,
        "compute_capability": str(gpu.compute_capability),
        "driver": str(chosen.host.driver_version),
        "date": today.isoformat(),
        "selftest": result.summary(),
        "evidence": f"bench/results/{file.name}",
    }
    return {"schema": SCHEMA, "run": run, "selftest": result.to_json()}


def _gpu(result: Result) -> Gpu:
    """The one that drew."""
    device = result.chosen.plan.devices[0]
    for gpu in result.chosen.host.gpus:
        if device == gpu.uuid or device in [part.uuid for part in gpu.mig]:
            return gpu
    raise _not_recordable(f"the host facts have no GPU {device}")
