"""Each way a run can fail: a verdict with a remedy and the contract's exit code, no traceback, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gpuhost import HOST

from sdrun.errors import NotEnoughMemory
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import generate, prepare
from sdrun.launch.request import Request
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit, LocalImage, OutputSink

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cpu_image")]

RUN = ("generate", "-m", "tiny", "--allow-cpu", "--gpu", "none", "-p", "x", "--json")
QUICK = (*RUN, "--steps", "1", "-W", "64", "-H", "64")
LONG = (*RUN, "--steps", "1000", "-W", "512", "-H", "512")  # many minutes
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root, for mounts and for signals to a container's process")


def started(arguments: tuple[str, ...], cwd: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "sdrun", *arguments]
    return subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def failed(arguments: tuple[str, ...], cwd: Path, env: dict[str, str]) -> dict[str, object]:
    """The error object of a run that must fail without a traceback."""
    return ended(started(arguments, cwd, env))


def ended(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    answer: dict[str, object] = json.loads(out)
    assert answer["schema"] == "sdrun.error/v1"
    assert process.returncode == answer["exit_code"]
    assert answer["message"]
    return answer


def containers(work: Path) -> set[str]:
    """The containers, running or not, that write into `work`: others may be at work on this machine."""
    form = "{{.ID}} {{.Mounts}}"
    argv = ["docker", "ps", "--all", "--no-trunc", "--filter", "label=io.sdrun.run", "--format", form]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in lines if f"{work}/" in line}


@pytest.fixture
def drawing(work: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A long run that has begun to draw, and its container."""
    process = started((*LONG, "-o", "x.png"), work, environment)
    try:
        assert process.stderr is not None  # it was asked for
        for line in process.stderr:
            if line.startswith("drawing"):
                break
        (mine,) = containers(work)
        yield process, mine
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None  # it was asked for
            pipe.close()


def engine_process(container: str) -> int:
    """The engine's own process on this host: the child of the container's init."""
    argv = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    init = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return int(Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split()[0])


def nothing_left(work: Path) -> None:
    assert list(work.iterdir()) == []
    assert containers(work) == set()


@root_only
@pytest.mark.parametrize(
    ("number", "id_"),
    [
        (signal.SIGKILL, "killed"),
        (signal.SIGABRT, "engine-aborted"),
        (signal.SIGSEGV, "segfault"),
        (signal.SIGILL, "cpu-too-old"),
    ],
)
def test_an_engine_that_dies(number: int, id_: str, drawing: tuple[subprocess.Popen[str], str], work: Path) -> None:
    process, container = drawing
    os.kill(engine_process(container), number)
    answer = ended(process)
    assert (answer["id"], answer["exit_code"]) == (id_, 9)
    assert answer["remedy"]
    nothing_left(work)


def test_a_container_killed_from_outside(drawing: tuple[subprocess.Popen[str], str], work: Path) -> None:
    process, container = drawing
    subprocess.run(["docker", "kill", container], check=True, capture_output=True)
    answer = ended(process)
    assert (answer["id"], answer["exit_code"]) == ("killed", 9)
    nothing_left(work)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_within_two_seconds(number: int, drawing: tuple[subprocess.Popen[str], str], work: Path) -> None:
    process, _ = drawing
    sent = time.monotonic()
    process.send_signal(number)
    answer = ended(process)
    assert time.monotonic() - sent < 2
    assert (answer["id"], answer["exit_code"]) == ("interrupted", 130)
    nothing_left(work)


def test_a_storm_of_interrupts(drawing: tuple[subprocess.Popen[str], str], work: Path) -> None:
    process, _ = drawing
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    process.wait(10)
    nothing_left(work)


@pytest.mark.parametrize("after", [0.3, 0.5, 0.7, 0.9])
def test_interrupted_while_it_starts(after: float, work: Path, environment: dict[str, str]) -> None:
    process = started((*LONG, "-o", "x.png"), work, environment)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)  # the second before any handler of ours can be there
    nothing_left(work)


def test_killed_outright_leaves_no_container(work: Path, environment: dict[str, str]) -> None:
    """Nobody is left to remove it, so the daemon must, when the engine has ended."""
    process = started((*RUN, "--steps", "20", "-W", "128", "-H", "128", "-o", "x.png"), work, environment)
    assert process.stderr is not None  # it was asked for
    for line in process.stderr:
        if line.startswith("drawing"):
            break
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while containers(work) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert containers(work) == set()
    assert not (work / "x.png").exists()


class Small:
    """The runtime with a memory limit on what it runs."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        return self._runtime.run(replace(spec, memory_bytes=40 << 20), on_output)


def test_out_of_memory(docker_runtime: ContainerRuntime, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SDRUN_STATE_DIR", str(work.parent / "state"))
    small: ContainerRuntime = Small(docker_runtime)  # type: ignore[assignment]
    request = Request("tiny", "x", width=512, height=512, steps=1)
    prepared, _ = prepare(request, Wishes(gpu="none", allow_cpu=True), Fetching(), Listener(), lambda: small)
    with pytest.raises(NotEnoughMemory) as caught:
        generate(prepared, small, Listener(), time.monotonic())
    assert caught.value.id == "out-of-memory"
    nothing_left(work)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("may not mount here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@root_only
def test_a_full_disk(tiny_disk: Path, work: Path, environment: dict[str, str]) -> None:
    answer = failed((*RUN, "--steps", "1", "-o", f"{tiny_disk}/x.png"), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("disk-full", 10)
    nothing_left(tiny_disk)


@root_only
def test_a_disk_full_of_something_else(tiny_disk: Path, work: Path, environment: dict[str, str]) -> None:
    (tiny_disk / "else").write_bytes(bytes(64 * 1024))
    answer = failed((*QUICK, "-o", f"{tiny_disk}/x.png"), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("disk-full", 10)
    assert [path.name for path in tiny_disk.iterdir()] == ["else"]


@root_only
def test_a_read_only_place(tiny_disk: Path, work: Path, environment: dict[str, str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    answer = failed((*QUICK, "-o", f"{tiny_disk}/x.png"), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("output-not-writable", 2)


def test_a_daemon_that_is_down(work: Path, environment: dict[str, str]) -> None:
    answer = failed(QUICK, work, {**environment, "DOCKER_HOST": f"unix://{work}/none.sock"})
    assert (answer["id"], answer["exit_code"]) == ("runtime-down", 6)


def test_no_runtime_installed(work: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """As on a machine without one: no socket in any of Podman's places, and no podman on PATH."""
    if Path("/run/podman/podman.sock").exists():
        pytest.skip("a podman socket is there")
    empty = {**environment, "PATH": str(tmp_path), "SDRUN_RUNTIME": "podman", "XDG_RUNTIME_DIR": str(tmp_path)}
    empty.pop("CONTAINER_HOST", None)
    answer = failed(QUICK, work, empty)
    assert (answer["id"], answer["exit_code"]) == ("runtime-missing", 6)


@root_only
def test_no_permission_on_the_socket(
    somebodys_home: Path, run_as_somebody: Callable[..., subprocess.CompletedProcess[str]], environment: dict[str, str]
) -> None:
    home = somebodys_home
    done = run_as_somebody(QUICK, home, environment, groups=())
    answer = json.loads(done.stdout)
    assert (answer["id"], done.returncode) == ("runtime-permission", 6)
    assert "Traceback" not in done.stderr


def test_an_image_that_is_not_here(work: Path, environment: dict[str, str]) -> None:
    answer = failed((*QUICK, "--image", f"sha256:{'0' * 64}"), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("image-missing", 6)
    row = {"target": "cpu", "image": f"sha256:{'0' * 64}", "platform": "linux/amd64", "toolkit": None, "sass": [], "ptx": []}
    index = {"schema": "sdrun.index/v1", "engine": "e", "images": [{**row, "fatbin_compression": None}]}
    (work.parent / "index.json").write_text(json.dumps(index))
    answer = failed((*QUICK, "--index", str(work.parent / "index.json")), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("image-missing", 6)
    nothing_left(work)


def test_a_truncated_model(work: Path, environment: dict[str, str], tmp_path: Path) -> None:
    from sdrun.models import tiny

    parts = tiny.write(tmp_path)
    whole = parts["diffusion"].read_bytes()
    named = ",".join(f"{role}={path}" for role, path in parts.items())
    for length in (len(whole) // 2, 100, 0):
        parts["diffusion"].write_bytes(whole[:length])
        arguments = list(QUICK)
        arguments[arguments.index("tiny")] = named
        answer = failed(tuple(arguments), work, environment)
        assert (answer["id"], answer["exit_code"]) == ("model-file-damaged", 7)
    nothing_left(work)


def test_an_engine_argument_it_does_not_know(work: Path, environment: dict[str, str]) -> None:
    answer = failed((*QUICK, "--", "--no-such-option"), work, environment)
    assert answer["exit_code"] == 2
    nothing_left(work)


def test_the_log_of_a_failure_is_kept_and_named(work: Path, environment: dict[str, str], tmp_path: Path) -> None:
    process = started((*QUICK, "--", "--no-such-option"), work, environment)
    _, err = process.communicate(timeout=60)
    (log,) = (tmp_path / "state" / "logs").iterdir()
    assert f"whole log: {log}" in err
    assert b"--no-such-option" in log.read_bytes()


def test_images_are_chosen_by_what_they_hold(cpu_image: LocalImage, work: Path, environment: dict[str, str]) -> None:
    """A host with a GPU is not given the cpu image unasked."""
    host = {
        **HOST,
        "runtime": {"name": "docker", "version": "28.5.2", "cdi_devices": ["nvidia.com/gpu=GPU-1"], "nvidia_runtime": False},
    }
    (work.parent / "host.json").write_text(json.dumps(host))
    arguments = tuple(word for word in QUICK if word not in ("--allow-cpu", "--gpu", "none"))
    answer = failed(arguments, work, {**environment, "SDRUN_HOST_FACTS": str(work.parent / "host.json")})
    assert answer["exit_code"] in (4, 6)
