"""Running a build program: progress, the kept log, and what a failure is turned into. The program is a script that writes what
a real one wrote."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.build.base import bootstrap_tag, ensure_base
from sdrun.build.building import KEPT_LOGS, BuildRequest, run_build
from sdrun.build.buildlog import BuildStep
from sdrun.build.client import BuildClient
from sdrun.build.local import with_local_source
from sdrun.core.engine import Engine, PathSource
from sdrun.core.target import Base, Target
from sdrun.errors import EngineFailed, NotEnoughMemory, RuntimeUnavailable, SdrunError, UsageProblem
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import LocalImage

Program = Callable[[str, str], Path]
COMPILE_ERROR = r"""
echo '#8 [engine 2/3] RUN cmake' >&2
echo '#8 0.7 [1/2] Building C object main.c.o' >&2
echo "#8 0.8 /src/main.c:3:11: error: expected ';' before '}' token" >&2
echo '#8 ERROR: exit code: 1' >&2
exit 1
"""


def run(program: Path, tmp_path: Path, on_step: Callable[[BuildStep], None] = lambda step: None) -> Path:
    log = tmp_path / "logs" / "build.log"
    request = BuildRequest(tmp_path, "sdrun:x", {}, {})
    run_build(BuildClient(str(program), "docker", ""), request, log, on_step)
    return log


def test_a_good_build(program: Program, tmp_path: Path) -> None:
    seen: list[BuildStep] = []
    log = run(program("docker", "echo '#8 [engine 2/3] RUN cmake'; echo '#8 1.0 [1/4] Building a'"), tmp_path, seen.append)
    assert [step.percent for step in seen] == [None, 25]
    assert log.read_text().splitlines() == ["#8 [engine 2/3] RUN cmake", "#8 1.0 [1/4] Building a"]


def test_a_compile_error_is_shown_and_the_log_kept(program: Program, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed) as raised:
        run(program("docker", COMPILE_ERROR), tmp_path)
    error = raised.value
    log = tmp_path / "logs" / "build.log"
    assert (error.id, error.exit_code) == ("build-failed", 9)
    assert "/src/main.c:3:11: error: expected ';' before '}' token" in (error.detail or "")
    assert str(log) in (error.detail or "")
    assert "Building C object main.c.o" in log.read_text()


@pytest.mark.parametrize(
    ("line", "kind", "id"),
    [
        ("write /var/lib/docker/x: no space left on device", NotEnoughMemory, "disk-full"),
        ("/tmp/cc.s: Error: can't write: No space left on device", NotEnoughMemory, "disk-full"),
        ("c++: fatal error: Killed signal terminated program cc1plus", NotEnoughMemory, "out-of-memory"),
        ("Err:1 bookworm InRelease Temporary failure resolving 'mirror'", SdrunError, "download-failed"),
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", RuntimeUnavailable, "buildkit-missing"),
    ],
)
def test_known_failures(program: Program, tmp_path: Path, line: str, kind: type[SdrunError], id: str) -> None:
    (tmp_path / "said").write_text(line + "\n")
    with pytest.raises(kind) as raised:
        run(program("docker", f"cat {tmp_path}/said; exit 1"), tmp_path)
    assert raised.value.id == id
    assert raised.value.remedy
    assert "build.log" in (raised.value.detail or "")


def test_old_logs_go(program: Program, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for i in range(KEPT_LOGS + 5):
        (tmp_path / "logs" / f"{i}.log").touch()
    run(program("docker", "echo hello"), tmp_path)
    assert len(list((tmp_path / "logs").iterdir())) == KEPT_LOGS


def test_an_interrupt_ends_the_build_program(program: Program, tmp_path: Path) -> None:
    body = f"trap 'echo ended > {tmp_path}/ended; exit 1' TERM; echo '#8 [engine 2/3] RUN x'; while :; do sleep 0.05; done"
    script = program("docker", body)
    code = f"""
import sys
from pathlib import Path
from sdrun.build.building import BuildRequest, run_build
from sdrun.build.client import BuildClient
client = BuildClient({str(script)!r}, "docker", "")
say = lambda step: print("started", flush=True)
run_build(client, BuildRequest(Path("."), "t", {{}}, {{}}), Path({str(tmp_path)!r}) / "logs" / "b.log", say)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, errors = process.communicate(timeout=10)
    assert time.monotonic() - started < 5
    assert b"KeyboardInterrupt" in errors
    assert (tmp_path / "ended").read_text() == "ended\n"


def base_image(reference: str) -> LocalImage:
    return LocalImage("sha256:base", (reference,), (), {}, 1, "linux/amd64")


def test_a_local_base_is_taken(base: Base, program: Program) -> None:
    client = BuildClient(str(program("docker", "exit 1")), "docker", "")
    for reference in (base.image, bootstrap_tag(base)):
        found = ensure_base(base, FakeRuntime(local=[base_image(reference)]), client, lambda text: None)
        assert (found.reference, found.id, found.origin) == (reference, "sha256:base", "local")


def test_a_base_is_pulled_where_a_registry_answers(base: Base, program: Program) -> None:
    runtime = FakeRuntime()
    pulling = program("docker", 'test "$1" = pull')
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        runtime.local.append(base_image(base.image))  # what the daemon has once the program is done

    found = ensure_base(base, runtime, BuildClient(str(pulling), "docker", ""), say)
    assert found.origin == "pulled"
    assert said == ["base image: pulling debian:bookworm-slim"]


def test_no_way_to_a_base(base: Base, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    client = BuildClient(str(program("docker", "echo 'dial tcp: no such host' >&2; exit 1")), "docker", "")
    said: list[str] = []
    with pytest.raises(RuntimeUnavailable, match="needs root") as raised:
        ensure_base(base, FakeRuntime(), client, said.append)
    assert (raised.value.id, raised.value.exit_code) == ("base-missing", 6)
    assert "no such host" in said[-1]


def test_a_local_engine_never_takes_a_pinned_tag(target: Target, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").touch()
    row, local = with_local_source(target, engine, tmp_path)
    assert row.tag == "local-cpu"
    assert local.source == PathSource(str(tmp_path))
    assert local.licence_files == ("LICENSE",)
    assert local.notice_files == ()
    assert engine.revision[:7] not in local.cmake.values()
    with pytest.raises(UsageProblem):
        with_local_source(target, engine, tmp_path / "LICENSE")
