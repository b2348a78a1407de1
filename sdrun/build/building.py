"""Running the build program: its progress told while it runs, its whole log kept, its failure turned into a verdict."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrun.build.buildlog import BuildStep, LogReader, error_lines
from sdrun.build.client import BuildClient
from sdrun.catalog.buildfailures import diagnose_build
from sdrun.errors import EngineFailed, SdrunError, from_refusal

OnStep = Callable[[BuildStep], None]
KEPT_LOGS = 20
STOP_SECONDS = 10  # after an interrupt: BuildKit ends its containers by itself within one or two


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build: `context` holds the Dockerfile; `tag` is given to the image; `labels` and `arguments` (build arguments)
    join those of the file."""

    context: Path
    tag: str
    labels: Mapping[str, str]
    arguments: Mapping[str, str]


def run_build(client: BuildClient, request: BuildRequest, log: Path, on_step: OnStep) -> None:
    """Builds, writing everything the program says to `log`. Raises EngineFailed (`build-failed`) with the error lines, or the
    error of a row of images/build_failures.yaml. A KeyboardInterrupt ends the program first and is raised on."""
    argv = client.build_argv(request.context, request.tag, request.labels, request.arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    reader = LogReader()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=client.environment())
    assert process.stdout is not None  # it was asked for
    try:
        with process.stdout, log.open("wb", buffering=0) as copy:
            for raw in process.stdout:
                copy.write(raw)
                step = reader.feed(raw.decode("utf-8", "replace").rstrip("\r\n"))
                if step is not None:
                    on_step(step)
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    _forget_old_logs(log.parent)
    if code != 0:
        raise _verdict(log, code)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _verdict(log: Path, code: int) -> SdrunError:
    content = log.read_bytes()
    lines = error_lines(content.decode("utf-8", "replace").splitlines())
    detail = "\n".join([*(f"  {line}" for line in lines), f"whole log: {log}"])
    verdict = diagnose_build(content)
    if verdict is not None:
        error = from_refusal(verdict.id, verdict.exit_code, verdict.message, verdict.remedy)
        error.detail = detail
        return error
    return EngineFailed(
        f"the image build failed (exit code {code})",
        f"Read the errors above; the whole log is {log}",
        id="build-failed",
        detail=detail,
    )


def _forget_old_logs(folder: Path) -> None:
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for old in logs[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
