"""What is cleared up when sdrun is killed: by real processes, over a runtime that plays the daemon."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import caretaker, connection

RUN = """
import sys, time
from pathlib import Path
from sdrun.runtime.caretaker import cared_for
with cared_for("docker", "sdrun-none", Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60 if sys.argv[2] == "stay" else 0)
"""


def start(scratch: Path, what: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "DOCKER_HOST": f"unix://{scratch.parent}/none.sock"}
    argv = [sys.executable, "-c", RUN, str(scratch), what]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_process_leaves_no_folder(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "half.png").touch()
    with start(scratch, "stay") as process:
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while scratch.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not scratch.exists()


def test_a_process_that_ends_by_itself_is_left_alone(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with start(scratch, "end") as process:
        assert process.wait(20) == 0
    time.sleep(0.5)
    assert scratch.exists()


def test_a_container_that_appears_late_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, False, True]
    asked: list[str] = []

    def remove(name: str) -> bool:
        asked.append(name)
        return answers.pop(0)

    monkeypatch.setattr(connection, "connect", lambda preferred: SimpleNamespace(remove=remove))
    monkeypatch.setattr(caretaker, "_PAUSE", 0)
    caretaker.main(["docker", "sdrun-1", str(tmp_path / "scratch")])
    assert asked == ["sdrun-1"] * 3


def test_a_daemon_that_has_gone_is_no_reason_to_keep_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(preferred: str) -> None:
        raise RuntimeUnavailable("gone", "", id="runtime-down")

    monkeypatch.setattr(connection, "connect", gone)
    (tmp_path / "scratch").mkdir()
    caretaker.clear_up("docker", "sdrun-1", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_without_a_second_process_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with caretaker.cared_for("docker", "sdrun-1", None):
        pass
