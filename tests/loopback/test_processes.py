"""`sdrun models pull` as a process: killed, interrupted, run twice at once, behind a proxy, on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback.hub import Fault, Hub
from loopback.pulling import Pulling
from loopback.store import environment, hub_file, model, random_bytes
from sdrun.errors import NotEnoughMemory
from sdrun.models.store import Store
from sdrun.models.tiny import build

PATH = "them/small/tae.gguf"
NAME = f"hf://{PATH}"
DATA = build("tae")
TENTH = len(DATA) // 10
LIMIT_S = 30


@pytest.fixture
def environ(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """What a process is started with: this hub, and a cache of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "SDRUN_"))}
    return (
        inherited
        | environment(hub)
        | {"SDRUN_CACHE_DIR": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    )


def start(environ: dict[str, str], *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "sdrun", "models", *words]
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def until(hub: Hub, count: int) -> None:
    """Waits until so many bytes of the file have been sent."""
    end = time.monotonic() + LIMIT_S
    while hub.sent[PATH] < count:
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def partial_size(root: Path) -> int:
    (path,) = (root / "models" / "partial").iterdir()
    return path.stat().st_size


def arrived(root: Path, count: int) -> None:
    """Waits until so many bytes are in the partial file."""
    end = time.monotonic() + LIMIT_S
    while not list((root / "models" / "partial").glob("*")) or partial_size(root) < count:
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def check_whole(root: Path) -> None:
    (blob,) = (path for path in (root / "models" / "blobs").iterdir() if not path.suffix)
    assert blob.read_bytes() == DATA
    assert not list((root / "models" / "partial").iterdir())


@pytest.mark.parametrize("tenth", [1, 5, 9])
def test_killed_and_run_again(hub: Hub, environ: dict[str, str], tmp_path: Path, tenth: int) -> None:
    hub.put(PATH, DATA)
    over = threading.Event()
    hub.script(PATH, Fault(cut=tenth * TENTH, hold=over))
    process = start(environ, "pull", NAME)
    arrived(tmp_path, tenth * TENTH)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    over.set()
    assert partial_size(tmp_path) == tenth * TENTH
    code, out, err = ended(start(environ, "pull", NAME))
    assert (code, out) == (0, f"{NAME}\n"), err
    assert hub.got("cdn", "GET")[-1].start == tenth * TENTH
    assert hub.sent[PATH] == len(DATA)
    check_whole(tmp_path)


def test_interrupted(hub: Hub, environ: dict[str, str], tmp_path: Path) -> None:
    hub.put(PATH, DATA)
    over = threading.Event()
    hub.script(PATH, Fault(cut=TENTH, hold=over))
    process = start(environ, "pull", NAME)
    arrived(tmp_path, TENTH)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert time.monotonic() - before < 2
    over.set()
    assert (code, out) == (130, "")
    assert "goes on from there" in err
    assert "Traceback" not in err
    assert partial_size(tmp_path) == TENTH


def test_two_processes_fetch_once(hub: Hub, environ: dict[str, str], tmp_path: Path) -> None:
    hub.put(PATH, DATA)
    over = threading.Event()
    hub.script(PATH, Fault(cut=TENTH, hold=over))
    first = start(environ, "pull", NAME)
    until(hub, TENTH)
    second = start(environ, "pull", NAME)
    assert second.stderr is not None
    for line in second.stderr:
        if "another sdrun is fetching tae.gguf" in line:
            break
    over.set()
    assert ended(first)[:2] == (0, f"{NAME}\n")
    assert ended(second)[:2] == (0, f"{NAME}\n")
    assert hub.sent[PATH] == len(DATA)
    check_whole(tmp_path)


def test_what_no_model_refers_to_is_not_removed_under_a_pull(hub: Hub, environ: dict[str, str], tmp_path: Path) -> None:
    hub.put(PATH, DATA)
    over = threading.Event()
    hub.script(PATH, Fault(cut=4 * TENTH, hold=over))
    pulling = start(environ, "pull", NAME)
    arrived(tmp_path, 4 * TENTH)
    code, _, said = ended(start(environ, "rm", "--unused"))
    assert (code, "another sdrun is fetching a model" in said) == (2, True)
    assert partial_size(tmp_path) == 4 * TENTH
    pulling.kill()
    ended(pulling)
    over.set()
    assert ended(start(environ, "rm", "--unused"))[0] == 0, "the system takes the lock from a process that dies"
    assert not list((tmp_path / "models/partial").iterdir())


def test_a_proxy(hub: Hub, environ: dict[str, str], tmp_path: Path) -> None:
    hub.put(PATH, DATA)
    environ |= {"HF_ENDPOINT": "http://hub.invalid", "http_proxy": hub.url}
    code, _, err = ended(start(environ, "pull", NAME))
    assert code == 0, err
    assert {request.headers["host"] for request in hub.got("hub", "GET")} == {"hub.invalid"}
    check_whole(tmp_path)


def test_progress_in_lines(hub: Hub, environ: dict[str, str]) -> None:
    hub.put(PATH, DATA)
    code, out, err = ended(start(environ, "pull", NAME))
    lines = err.splitlines()
    assert (code, out) == (0, f"{NAME}\n")
    assert lines[0].startswith(f"{NAME}: fetching 4.9 MB in 1 file; ")
    assert any(line.startswith("100%  4.9 MB of 4.9 MB") for line in lines)
    assert "checking tae.gguf" in lines
    assert "tae.gguf was not pinned; from now on it is: sha256" in err


def test_nobody_else_is_asked(hub: Hub, environ: dict[str, str]) -> None:
    """No list of programs, no telemetry, no update check: only the questions about the file."""
    hub.put(PATH, DATA)
    assert ended(start(environ, "pull", NAME))[0] == 0
    assert [(r.server, r.method) for r in hub.requests] == [("hub", "HEAD"), ("hub", "GET"), ("cdn", "GET")]
    agent = hub.requests[0].headers["user-agent"]
    assert agent.startswith("sdrun/")
    assert "agent/" not in agent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_on_the_way(hub: Hub, small_disk: Path, pulling: Pulling, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(3 << 20)
    digest = hub.put("them/small/big.gguf", data)
    wanted = model("big", {"diffusion": hub_file("them/small/big.gguf", digest)})
    pulling.root = small_disk / "store"
    with pytest.raises(NotEnoughMemory) as caught:
        pulling(wanted)
    assert "needs 70.3 MB" in caught.value.message
    assert not list(small_disk.rglob("sha256-*"))
    # Another program takes the room after it was counted.
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 40})())
    with pytest.raises(NotEnoughMemory) as caught:
        pulling(wanted)
    assert (caught.value.id, caught.value.exit_code) == ("disk-full", 10)
    assert pulling.names.all() == []
    (kept,) = pulling.partials
    assert 1 << 20 < kept.stat().st_size <= 2 << 20
    size = kept.stat().st_size
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    pulling(wanted)
    assert pulling.visible() == {"big.gguf": data}
    assert hub.got("cdn", "GET")[-1].start == size


def test_a_store_that_is_full_when_a_model_is_made(small_disk: Path) -> None:
    from sdrun.catalog.models import models

    with pytest.raises(NotEnoughMemory) as caught:
        Store(small_disk / "models", lambda text: None).have(models()["tiny"])
    assert caught.value.id == "disk-full"
