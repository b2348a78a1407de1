"""The end of the process: quick, and nothing is lost by it."""

import subprocess
import sys
from pathlib import Path

import pytest


def ended(code: str, *options: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *options, "-c", f"import sys\nfrom sdrun.__main__ import leave\n{code}"]
    return subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("code", [0, 4, 130])
def test_what_is_buffered_or_registered_is_written(code: int) -> None:
    done = ended(
        f"import atexit\natexit.register(print, 'at the end')\nsys.stdout.write('out')\nsys.stderr.write('err')\nleave({code})"
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "outat the end\n", "err")


def test_modules_are_not_taken_apart() -> None:
    done = ended(
        "import os\nclass Last:\n    def __del__(self, write=os.write): write(1, b'taken apart')\nkept = Last()\nleave(0)"
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_thread_that_works_is_waited_for() -> None:
    done = ended(
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('worked'))).start()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "leave(7)"
    )
    assert (done.returncode, done.stdout) == (7, "worked\n")


def test_a_profiler_gets_its_end(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from sdrun.__main__ import leave\nleave(0)\n")
    argv = [sys.executable, "-m", "cProfile", "-o", str(tmp_path / "profile"), str(script)]
    subprocess.run(argv, check=True, capture_output=True)
    assert (tmp_path / "profile").stat().st_size


def test_a_tool_of_sys_monitoring_gets_its_end() -> None:
    tool = (  # as cProfile is one from Python 3.12 on; this Python may be older
        "from types import SimpleNamespace\n"
        "sys.monitoring = SimpleNamespace(get_tool=lambda tool: 'cProfile' if tool == 2 else None)\n"
    )
    last = "import os\nclass Last:\n    def __del__(self, write=os.write): write(1, b'taken apart')\nkept = Last()\n"
    done = ended(f"{tool}{last}leave(0)")
    assert (done.returncode, done.stdout) == (0, "taken apart")


def test_streams_that_take_nothing_more() -> None:
    assert ended("sys.stdout = None\nleave(3)").returncode == 3
    assert ended("sys.stdout.close()\nleave(3)").returncode == 3
    with Path("/dev/full").open("wb") as full:
        done = ended("sys.stdout.write('x')\nleave(3)", stdout=full.fileno())
    assert done.returncode != 0
    assert "No space left" in done.stderr
