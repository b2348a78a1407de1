"""Running sdrun and the container runtime's own program, and looking at what is there before and after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sdrun.core.selftest import Difference, difference
from sdrun.launch.png import pixels_of
from sdrun.runtime.hardening import RUN_LABEL
from sdrun.runtime.protocol import GpuRequest

ROOT = Path(__file__).resolve().parents[2]
# What would send a run somewhere else than to this machine's own images and GPUs.
_LEADING = ("SDRUN_INDEX", "SDRUN_REGISTRY", "SDRUN_HOST_FACTS", "SDRUN_COMPUTE_CAPABILITY", "SDRUN_DRIVER_VERSION")
_GONE_WITHIN = 15.0  # seconds: the daemon removes a container some time after its process ended


@dataclass(frozen=True)
class Sdrun:
    """The command line, run in `work` with logs of its own there and the further variables `extra`; `code` is the checkout."""

    work: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    code: Path = ROOT

    @property
    def environ(self) -> dict[str, str]:
        """The user's own, less what leads elsewhere; sdrun is importable from any folder."""
        own = {name: value for name, value in os.environ.items() if name not in _LEADING}
        path = os.pathsep.join(filter(None, (str(self.code), os.environ.get("PYTHONPATH"))))
        return {**own, "PYTHONPATH": path, "SDRUN_STATE_DIR": str(self.work / "state"), **self.extra}

    def argv(self, *words: str) -> list[str]:
        """The command."""
        return [sys.executable, "-m", "sdrun", *words]

    def __call__(self, *words: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), cwd=self.work, env=self.environ, capture_output=True, text=True, check=False, timeout=timeout
        )

    def answer(self, *words: str, code: int = 0) -> dict[str, Any]:
        """What it answers with --json; the test fails where it ends with another code."""
        done = self(*words, "--json")
        assert done.returncode == code, f"sdrun {' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def pointed_to(self, **extra: str) -> Sdrun:
        """The same with further variables."""
        return replace(self, extra={**self.extra, **extra})


def docker(*words: str, check: bool = True, timeout: float = 280) -> str:
    """What docker's own program answers."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=timeout)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def smi(*fields: str) -> list[list[str]]:
    """What nvidia-smi says of each GPU. Skips where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi") or shutil.which("/usr/local/nvidia/bin/nvidia-smi")
    if program is None:
        pytest.skip("needs nvidia-smi, to compare with")
    argv = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return [[value.strip() for value in line.split(",")] for line in lines if line.strip()]


def request_of(plan: Mapping[str, Any]) -> GpuRequest:
    """What a runtime is asked for where sdrun has chosen these GPUs: by CDI, or by NVIDIA's hook where CDI is not set up."""
    if plan["gpu_access"] == "cdi":
        return GpuRequest("cdi", tuple(f"nvidia.com/gpu={uuid}" for uuid in plan["devices"]))
    return GpuRequest("gpus-flag", tuple(plan["devices"]))


def apart(one: Path, other: Path) -> Difference:
    """How far two PNG files of one size are apart, in levels of 255."""
    return difference(pixels_of(one.read_bytes()).rows, pixels_of(other.read_bytes()).rows)


def containers() -> set[str]:
    """Names of sdrun's containers, running or not."""
    return set(docker("ps", "--all", "--filter", f"label={RUN_LABEL}", "--format", "{{.Names}}").split())


def unused_networks() -> set[str]:
    """Names of networks that somebody may have left; those that sdrun makes once and keeps are not counted."""
    return set(docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").split()) - {
        "sdrun-internal",
        "sdrun-published",
    }


def nothing_more_than(before: tuple[set[str], set[str]]) -> None:
    """The test fails where containers or networks have been left."""
    until = time.monotonic() + _GONE_WITHIN
    while (left := containers() - before[0]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, f"left behind: containers {sorted(left)}"
    assert unused_networks() <= before[1], "left behind: a network"


@contextmanager
def first_container(program: Sequence[str] = ("docker",)) -> Iterator[subprocess.Popen[str]]:
    """A process whose first line of output is the id of the next container that sdrun starts."""
    argv = [*program, "events", "--filter", f"label={RUN_LABEL}", "--filter", "event=start", "--format", "{{.ID}}"]
    events = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield events
    finally:
        events.kill()
        events.communicate()


def created_since(moment: float) -> str:
    """The containers of sdrun that were created since `moment` (seconds since the epoch), a line each."""
    words = ("--filter", f"label={RUN_LABEL}", "--filter", "event=create", "--format", "{{.ID}}")
    return docker("events", "--since", f"{moment:.3f}", "--until", f"{time.time():.3f}", *words)
