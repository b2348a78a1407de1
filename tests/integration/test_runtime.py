"""The container runtimes themselves: what a container may do, how its end is told, that none is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, GpuRequest, LocalImage, Mount

pytestmark = pytest.mark.integration
TEST_LABEL = "io.sdrun.test"


class Words:
    """Collects the output."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""

    def take(self, stream: str, data: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + data)

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()


@pytest.fixture
def spec(engine_image: LocalImage, standin: Path, tmp_path: Path) -> ContainerSpec:
    """The stand-in in the engine's place, with one folder to write into."""
    tmp_path.chmod(0o777)
    return ContainerSpec(
        image=engine_image.id,
        command=(),
        user="1234:2345",
        mounts=(Mount(standin, "/standin"), Mount(tmp_path, "/out", read_only=False)),
        environment={"A": "b c"},
        tmpfs=("/tmp",),
        entrypoint=("/standin",),
        labels={TEST_LABEL: str(tmp_path)},
    )


def containers(runtime: ContainerRuntime, label: str) -> list[str]:
    api = runtime._api  # type: ignore[attr-defined]
    return [str(row["Id"]) for row in api.containers({"label": [label]})]


@pytest.fixture(autouse=True)
def nothing_left(runtime: ContainerRuntime, tmp_path: Path) -> Iterator[None]:
    """No container of this test is there when it has ended; others may be at work on this machine."""
    yield
    assert containers(runtime, f"{TEST_LABEL}={tmp_path}") == []


def test_what_a_container_is_denied(runtime: ContainerRuntime, spec: ContainerSpec, tmp_path: Path) -> None:
    words = Words()
    writes = ("/x", "/standin", "/out/x", "/tmp/x", "/usr/x", "/etc/x", "/sys/x", "/proc/sys/kernel/hostname")
    exit = runtime.run(replace(spec, command=("look", *writes)), words.take)
    assert (exit.code, exit.out_of_memory) == (0, False)
    said = dict(line.split(":", 1) for line in words.lines if ":" in line and " - " not in line)
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(said[capabilities], 16) == 0
    assert said["NoNewPrivs"].strip() == "1"
    assert said["Seccomp"].strip() == "2"
    assert said["Uid"].split() == ["1234"] * 4
    assert said["Gid"].split() == ["2345"] * 4
    assert [line for line in words.lines if line.startswith("interface ") and line[10] != "."] == ["interface lo"]
    assert [path for path in writes if said[f"write {path}"].strip() == "ok"] == ["/out/x", "/tmp/x"]
    options = next(line for line in words.lines if " /tmp " in line and " - tmpfs" in line)
    assert all(option in options for option in ("noexec", "nosuid", "nodev"))
    assert (tmp_path / "x").stat().st_uid == 1234
    assert (tmp_path / "x").stat().st_gid == 2345


def test_arguments_arrive_unchanged(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    odd = ["", "-", "--", "-x=1", "a 'b' \"c\" $(d) `e` \\", "🦊\ttab", "%d"]
    words = Words()
    runtime.run(replace(spec, command=("arguments", *odd)), words.take)
    assert words.lines == [f"{len(word.encode())}:{word}" for word in odd]


def test_every_byte_of_output_comes_in_order(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    words = Words()
    runtime.run(replace(spec, command=("pour", "200000")), words.take)
    assert words.stdout == b"".join(b"%09d\n" % number for number in range(200_000))


def test_output_comes_while_it_runs(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    at: list[float] = []
    runtime.run(replace(spec, command=("sleep", "700")), lambda stream, data: at.append(time.monotonic()))
    assert at[-1] - at[0] > 0.5


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("exit", "0"), 0),
        (("exit", "7"), 7),
        (("abort",), 134),
        (("signal", str(int(signal.SIGSEGV))), 139),
        (("signal", str(int(signal.SIGILL))), 132),
        (("signal", str(int(signal.SIGKILL))), 137),
    ],
)
def test_how_it_ended(runtime: ContainerRuntime, spec: ContainerSpec, command: tuple[str, ...], code: int) -> None:
    words = Words()
    exit = runtime.run(replace(spec, command=command), words.take)
    assert (exit.code, exit.out_of_memory) == (code, False)
    if command[0] == "exit":
        assert words.stderr == b"last words\n"


def test_seconds_are_the_process_own(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    exit = runtime.run(replace(spec, command=("sleep", "500")), lambda *_: None)
    assert 0.3 < exit.seconds < 1.0  # Docker 20.10 on a busy host noted the start 0.08 s after the process began


def test_memory_limit(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    exit = runtime.run(replace(spec, command=("eat",), memory_bytes=64 << 20), lambda *_: None)
    assert exit.code == 137
    if runtime.name == "docker" or _knows_memory_kills():
        assert exit.out_of_memory


def _knows_memory_kills() -> bool:
    """Podman's conmon reports them on cgroup v2; on v1 it did not (seen with 4.3.1)."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.mark.parametrize("after", [0.02, 0.05, 0.1, 0.2, 0.6])
def test_an_interrupt_at_any_moment(runtime: ContainerRuntime, spec: ContainerSpec, after: float) -> None:
    sent: list[float] = []

    def interrupt() -> None:
        time.sleep(after)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            runtime.run(replace(spec, command=("sleep", "30000")), lambda *_: None)
    finally:
        thread.join()
    assert time.monotonic() - sent[0] < 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_sink_that_fails_stops_the_container(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    def sink(stream: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    began = time.monotonic()
    with pytest.raises(OSError, match="No space"):
        runtime.run(replace(spec, command=("sleep", "30000")), sink)
    assert time.monotonic() - began < 5


def test_what_cannot_start(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    cases: list[tuple[ContainerSpec, str]] = [
        (replace(spec, image="sdrun:no-such-image"), "image-missing"),
        (replace(spec, mounts=(*spec.mounts, Mount(Path("/no/such/place"), "/m"))), "runtime-failed"),
        (replace(spec, gpu=GpuRequest("cdi", ("nvidia.com/gpu=GPU-none",))), ""),
    ]
    for case, id_ in cases:
        with pytest.raises(RuntimeUnavailable) as caught:
            runtime.run(case, lambda *_: None)
        assert caught.value.exit_code == 6
        assert caught.value.remedy
        assert not id_ or caught.value.id == id_


def test_images(runtime: ContainerRuntime, engine_image: LocalImage) -> None:
    assert runtime.image("sdrun:no-such-image") is None
    again = runtime.image(engine_image.id)
    assert again is not None
    assert again.id == engine_image.id
    assert again.platform == engine_image.platform
    assert again.labels["io.sdrun.target"] == "cpu"
    assert 20_000_000 < again.size_bytes < 200_000_000
    assert runtime.images("no.such.label") == []


def test_facts(runtime: ContainerRuntime) -> None:
    facts = runtime.facts()
    assert facts.name == runtime.name
    assert facts.version


def test_podman_hands_over_cdi_devices(runtime: ContainerRuntime, spec: ContainerSpec) -> None:
    """A CDI device needs no hardware: this one is a variable."""
    folder = Path("/etc/cdi")
    if runtime.name != "podman" or os.geteuid() != 0:
        pytest.skip("Podman, and root to write /etc/cdi")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    specification = folder / "sdrun-test-probe.json"
    edits = '{"mounts": [{"hostPath": "/etc", "containerPath": "/handed", "options": ["ro", "bind"]}]}'
    specification.write_text(
        f'{{"cdiVersion": "0.3.0", "kind": "sdrun.test/probe", "devices": [{{"name": "one", "containerEdits": {edits}}}]}}'
    )
    try:
        words = Words()
        assert "sdrun.test/probe=one" in runtime.facts().cdi_devices
        gpu = GpuRequest("cdi", ("sdrun.test/probe=one",))
        assert runtime.run(replace(spec, command=("look",), gpu=gpu), words.take).code == 0
        assert any(" /handed " in line for line in words.lines)
    finally:
        specification.unlink()
        if made:
            folder.rmdir()
