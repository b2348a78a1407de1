"""The doctor against the real container runtime, and the diagnosis against the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdrun.launch.diagnosis import LogReader, Verdict, diagnose
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit, LocalImage, Mount

pytestmark = pytest.mark.integration


def doctor(**environ: str) -> tuple[int, dict[str, dict[str, str]], float]:
    started = time.monotonic()
    own = {name: value for name, value in os.environ.items() if not name.startswith("SDRUN_")}
    process = subprocess.run(
        [sys.executable, "-m", "sdrun", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=own | environ,
        timeout=90,
    )
    checks = {check["name"]: check for check in json.loads(process.stdout)["checks"]}
    return process.returncode, checks, time.monotonic() - started


def test_a_container_is_really_started_and_leaves_nothing_behind(
    docker_runtime: ContainerRuntime, cpu_image: LocalImage
) -> None:
    code, checks, seconds = doctor()
    assert checks["runtime"]["status"] == "ok"
    assert checks["container"]["status"] == "ok", checks["container"]
    assert "exit 0" in checks["container"]["seen"]
    assert checks["disk-images"]["status"] == "ok"
    assert checks["selftest"]["status"] == "ok", checks["selftest"]
    assert seconds < 60
    if checks["gpu"]["status"] == "fail":
        assert code == 3
        assert checks["image"]["status"] == "skip"
    left = docker_runtime._api.containers({"label": ["io.sdrun.run"], "ancestor": [cpu_image.id]})
    assert not [container for container in left if "--version" in container["Command"]]


def test_a_dead_daemon_is_told_quickly() -> None:
    code, checks, seconds = doctor(DOCKER_HOST="tcp://127.0.0.1:1", SDRUN_RUNTIME="docker")
    assert code == 6
    assert checks["runtime"]["status"] == "fail"
    assert checks["container"]["status"] == "skip"
    assert seconds < 12


def test_a_full_gpu_host_from_facts_finds_the_missing_image(tmp_path: Path) -> None:
    facts = tmp_path / "host.json"
    gpu = {"index": 0, "uuid": "GPU-1", "name": "X", "compute_capability": "9.0", "memory_mib": 1000}
    host = {"schema": "sdrun.host/v1", "platform": "linux/amd64", "driver_version": "580.159.04", "gpus": [gpu]}
    host["runtime"] = {"name": "docker", "version": "28.5.2", "cdi_devices": ["nvidia.com/gpu=all"]}
    facts.write_text(json.dumps(host))
    index = tmp_path / "index.json"
    image = {"target": "cu130-sm89", "image": "r@sha256:1", "platform": "linux/amd64", "toolkit": "13.0", "sass": ["89"]}
    index.write_text(json.dumps({"schema": "sdrun.index/v1", "engine": "e", "images": [image]}))
    code, checks, _ = doctor(SDRUN_HOST_FACTS=str(facts), SDRUN_INDEX=str(index))
    assert checks["gpu"]["status"] in ("ok", "warn")
    assert checks["driver"]["status"] == "ok"
    assert checks["image"]["status"] == "fail"
    assert checks["overrides"]["status"] == "warn"
    assert code == 4


class TestRealEngine:
    """The texts of the table as the pinned engine really writes them."""

    @pytest.fixture
    def verdict(self, docker_runtime: ContainerRuntime, cpu_image: LocalImage, tmp_path: Path):
        def run(*command: str, expected_gpu: bool = False, **files: bytes) -> Verdict | None:
            for name, content in files.items():
                (tmp_path / f"{name}.gguf").write_bytes(content)
            log = LogReader()
            spec = ContainerSpec(
                cpu_image.id, command, f"{os.getuid()}:{os.getgid()}", (Mount(tmp_path, "/models"),), tmpfs=("/tmp",)
            )
            end: Exit = docker_runtime.run(spec, log.feed)
            return diagnose(log, end, expected_gpu)

        return run

    def test_unknown_argument(self, verdict) -> None:
        found = verdict("--bogus")
        assert (found.id, found.exit_code) == ("engine-argument-rejected", 2)
        assert "--bogus" in found.message

    def test_no_model(self, verdict) -> None:
        assert verdict("-p", "x").id == "engine-argument-rejected"

    def test_missing_file(self, verdict) -> None:
        assert verdict("-m", "/models/none.gguf", "-p", "x").id == "model-file-missing"

    def test_no_model_at_all_in_the_file(self, verdict) -> None:
        assert verdict("-m", "/models/a.gguf", "-p", "x", a=b"nothing of the kind" * 100).id == "model-unknown"

    def test_truncated_file(self, verdict) -> None:
        found = verdict("-m", "/models/a.gguf", "-p", "x", a=b"GGUF\x03\x00\x00\x00" + b"\x05" + b"\x00" * 20)
        assert (found.id, found.exit_code) == ("model-file-damaged", 7)

    def test_cpu_run_where_a_gpu_was_asked_for(self, verdict) -> None:
        assert verdict("--version") is None
        assert verdict("--version", expected_gpu=True).id == "ran-on-cpu"
