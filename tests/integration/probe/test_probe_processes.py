"""nvidia-smi as a program, and the process runner under every probe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.core.version import DriverVersion
from sdrun.probe import driver as driver_module
from sdrun.probe.detect import detect
from sdrun.probe.driver import ask_driver
from sdrun.probe.process import NotStarted, run_limited

UUID = "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21"
ROW = f"0, {UUID}, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559"
MakeSmi = Callable[[str], dict[str, str]]


def test_one_gpu(empty_root: Path, make_smi: MakeSmi) -> None:
    query = "--query-gpu=index,uuid,name,compute_cap,driver_version,memory.total"
    environ = make_smi(f'[ "$*" = "{query} --format=csv,noheader,nounits" ] || exit 2\necho "{ROW}"')
    host = detect(empty_root, environ)
    assert (host.probe, str(host.driver_version), host.cuda_driver, host.notes) == ("nvidia-smi", "580.159.04", None, ())
    assert [gpu.uuid for gpu in host.gpus] == [UUID]


def test_driver_that_does_not_know_compute_cap(empty_root: Path, make_smi: MakeSmi) -> None:
    script = f"""case "$1" in
*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;;
*) echo "0, {UUID}, Tesla K80, 470.82.01, 11441";;
esac"""
    host = detect(empty_root, make_smi(script))
    assert (host.probe, host.gpus) == ("nvidia-smi", ())
    assert host.driver_version == DriverVersion.parse("470.82.01")
    assert "SDRUN_COMPUTE_CAPABILITY" in host.notes[0]


def test_no_devices(empty_root: Path, make_smi: MakeSmi) -> None:
    host = detect(empty_root, make_smi("echo No devices were found; exit 6"))
    assert (host.probe, host.gpus, host.notes) == ("nvidia-smi", (), ("nvidia-smi finds no device.",))


def test_failure_is_quoted(empty_root: Path, make_smi: MakeSmi) -> None:
    host = detect(empty_root, make_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"))
    assert host.probe == "none"
    assert host.notes == ('nvidia-smi failed (exit 18): "Failed to initialize NVML: Driver/library version mismatch".',)


def test_program_that_does_not_start(empty_root: Path, make_smi: MakeSmi, tmp_path: Path) -> None:
    environ = make_smi("")
    (tmp_path / "bin/nvidia-smi").write_text("#!/nonexistent/interpreter\n", encoding="utf-8")
    assert detect(empty_root, environ).notes == ("nvidia-smi does not start (No such file or directory).",)


def test_cudas_variables_do_not_reach_nvidia_smi(empty_root: Path, make_smi: MakeSmi) -> None:
    environ = make_smi(f'[ -z "${{CUDA_VISIBLE_DEVICES+set}}" ] && echo "{ROW}"') | {"CUDA_VISIBLE_DEVICES": ""}
    assert len(detect(empty_root, environ).gpus) == 1


def test_flood_is_cut(empty_root: Path, make_smi: MakeSmi) -> None:
    start = time.monotonic()
    host = detect(empty_root, make_smi("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"), limit_s=30)
    assert time.monotonic() - start < 25
    assert host.probe == "none"
    assert "nvidia-smi failed" in host.notes[0]


@pytest.mark.parametrize(
    ("program", "code", "ending"),
    [
        ("print('x')", 0, "exit 0"),
        ("import sys; sys.exit(9)", 9, "exit 9"),
        ("import os; os.kill(os.getpid(), 11)", -11, "signal SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", -40, "signal 40"),
        ("import time; time.sleep(600)", None, "no answer in time"),
        ("import os, time; os.close(1); time.sleep(600)", None, "no answer in time"),
        ("import os, time; os.fork() or time.sleep(600)", None, "no answer in time"),
    ],
)
def test_endings(program: str, code: int | None, ending: str) -> None:
    finished = run_limited([sys.executable, "-I", "-S", "-c", program], {}, 1.0)
    assert (finished.code, finished.ending) == (code, ending)


def test_output_before_the_end_is_kept() -> None:
    program = "import time; print('first', flush=True); time.sleep(600)"
    finished = run_limited([sys.executable, "-I", "-S", "-c", program], {}, 1.0)
    assert (finished.code, finished.output) == (None, "first\n")


def test_bytes_that_are_no_text() -> None:
    assert run_limited(["/usr/bin/printf", "\\377x"], {}, 5.0).output == "\ufffdx"


def test_program_that_is_not_there() -> None:
    with pytest.raises(NotStarted, match="No such file"):
        run_limited(["/nonexistent"], {}, 1.0)


def test_interpreter_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    (answer,) = ask_driver({}, 1.0)
    assert not answer.answered
    assert "/nonexistent/python does not start" in answer.notes[0]


def test_binding_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver_module, "find_spec", lambda name: None)
    (tmp_path / "libcuda.so.1").write_text("not a library", encoding="utf-8")
    answers = ask_driver({"LD_LIBRARY_PATH": str(tmp_path)}, 8.0)
    assert [answer.probe for answer in answers] == ["nvml", "libcuda"]
    assert "nvidia-ml-py is missing" in answers[0].notes[0]
