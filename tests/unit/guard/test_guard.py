"""The guard, compiled as an image's build compiles it, in front of a program that says its arguments, with a stand-in for the
driver's library: every verdict, its exit code and its one line."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.core.capability import ComputeCapability
from sdrun.core.code import match
from sdrun.core.guard import PROGRAMS, guard_header
from sdrun.core.index import IndexImage
from sdrun.core.target import Target
from sdrun.resources import images_dir

FIXTURES = Path(__file__).parents[2] / "fixtures" / "guard"
NAMES = ("sd-cli", "sd-server")
CUDA_ROWS = [row for row in targets().rows if row.toolkit]
Run = subprocess.CompletedProcess[str]


def row(name: str) -> Target:
    return next(row for row in CUDA_ROWS if row.name == name)


def compile_c(source: Path, out: Path, *options: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "the tests need a C compiler"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(out), *options], check=True)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in libcuda.so.1."""
    folder = tmp_path_factory.mktemp("driver")
    compile_c(FIXTURES / "stub_cuda.c", folder / "libcuda.so.1", "-shared", "-fPIC")
    return folder


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory, driver: Path) -> Callable[..., Run]:
    """Runs the guard of a target under a program's name; keywords are the stand-in's environment. `library` None: no driver."""
    built: dict[str, Path] = {}

    def run(name: str, *arguments: str, program: str = "sd-cli", library: Path | None = driver, **environment: str) -> Run:
        if name not in built:
            built[name] = install(tmp_path_factory.mktemp(name), row(name))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA", "STUB", "SDRUN", "LD_"))}
        env |= environment | ({"LD_LIBRARY_PATH": str(library)} if library else {})
        argv = [str(built[name] / "bin" / program), *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=20)

    return run


def install(root: Path, target: Target) -> Path:
    """bin/ holds guards, programs/ the engine's stand-ins: as in an image, at other paths."""
    header = guard_header(target, NAMES, load_cuda_facts())
    assert PROGRAMS in header
    (root / "guard-target.h").write_text(header.replace(PROGRAMS, str(root / "programs")), encoding="utf-8")
    (root / "bin").mkdir()
    compile_c(images_dir() / "guard" / "guard.c", root / "bin" / "sd-cli", f"-I{root}", "-ldl")
    (root / "bin" / "other").hardlink_to(root / "bin" / "sd-cli")
    (root / "bin" / "sd-server").hardlink_to(root / "bin" / "sd-cli")
    for variant in target.variants:
        for name in NAMES:
            program = root / "programs" / variant.name / name
            program.parent.mkdir(parents=True, exist_ok=True)
            said = " ".join(filter(None, (variant.name, name)))
            program.write_text(f'#!/bin/sh\necho "{said} got: $*"\n', encoding="utf-8")
            program.chmod(0o755)
    return root


@pytest.mark.parametrize("program", NAMES)
def test_a_gpu_that_fits_starts_the_program(guard: Callable[..., Run], program: str) -> None:
    done = guard("cu118-sm61", "-p", "a cat", program=program, STUB_GPUS="61", STUB_DRIVER="11040")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} got: -p a cat\n", "")


@pytest.mark.parametrize(
    ("target", "gpus", "driver_cuda", "code", "line"),
    [
        (
            "cu118-sm61", "89", "12020", 4,
            "no-code-for-capability: cu118-sm61 (sm_61) has no code for GPU 0, Stub GPU 100 (compute capability 8.9); "
            "use target cu124-sm89",
        ),
        ("cu118-sm61", "89", "11040", 4, "(compute capability 8.9); use target cu118-sm89"),
        ("cu124-sm86", "80", "12040", 4, "(compute capability 8.0); use target cu124-sm80"),
        ("cu124-sm89", "120", "13000", 4, "(compute capability 12.0); use target cu130-sm120"),
        ("cu124-sm89", "120", "12080", 4, "(compute capability 12.0); use target cu129-sm120"),
        ("cu130-sm120", "121", "13000", 4, "cu130-sm120 (sm_120a) has no code for GPU 0, Stub GPU 100"),
        ("cu118-sm61", "89,61", "12020", 4, "; GPU 1 runs it: set CUDA_VISIBLE_DEVICES=1"),
        ("cu130-multi", "121", "13000", 4, "arch-mismatch: in cu130-multi (sm_75, sm_86, sm_89, sm_120a, PTX 89) code"),
        (
            "cu130-sm89", "89", "12020", 5,
            "driver-too-old: cu130-sm89 needs a driver that speaks CUDA 13.0 for GPU 0, Stub GPU 100 (compute capability 8.9), "
            "and this one speaks 12.2; install driver 580.65.06 or newer on the host, or use target cu124-sm89",
        ),
        ("cu129-sm120", "120", "12020", 5, "needs a driver that speaks CUDA 12.4 for"),
        ("cu118-sm61", "61", "10020", 5, "speaks 10.2; install driver 450.80.02 or newer on the host"),
        ("cu124-multi", "100", "12020", 5, "ptx-newer-than-driver: cu124-multi needs a driver that speaks CUDA 12.4"),
        ("cu118-sm61", "42", "12020", 4, "(compute capability 4.2)"),
    ],
)  # fmt: skip
def test_refusals(guard: Callable[..., Run], target: str, gpus: str, driver_cuda: str, code: int, line: str) -> None:
    done = guard(target, STUB_GPUS=gpus, STUB_DRIVER=driver_cuda)
    assert done.returncode == code
    assert line in done.stderr
    assert done.stderr.startswith("sdrun guard: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"STUB_INIT": "100"}, "the driver sees no GPU in this container"),
        ({"STUB_GPUS": ""}, "the driver sees no GPU in this container"),
        ({"STUB_INIT": "803"}, "the NVIDIA driver does not work: cuInit fails with error 803"),
        ({"STUB_FAIL": "0"}, "cuDeviceGet fails with error 101"),
    ],
)
def test_no_usable_gpu(guard: Callable[..., Run], environment: dict[str, str], line: str) -> None:
    done = guard("cu118-sm61", **{"STUB_GPUS": "61", **environment})
    assert (done.returncode, done.stdout) == (3, "")
    assert line in done.stderr
    assert done.stderr.startswith("sdrun guard: no-gpu: ")


def test_no_driver(guard: Callable[..., Run], tmp_path: Path) -> None:
    if not _has_driver():
        done = guard("cu118-sm61", "--version", library=None)
        assert done.returncode == 3
        assert "no NVIDIA driver is in reach of this container (libcuda.so.1 is not there): start it" in done.stderr
        assert "450.80.02 or newer" in done.stderr
    (tmp_path / "libcuda.so.1").write_text("not a library")
    assert "file too short" in guard("cu118-sm61", library=tmp_path).stderr
    compile_c(FIXTURES / "stub_cuda.c", tmp_path / "libcuda.so.1", "-shared", "-fPIC", "-DWITHOUT_NAME")
    done = guard("cu118-sm61", library=tmp_path, STUB_GPUS="61")
    assert (done.returncode, "lacks a function" in done.stderr) == (3, True)


def _has_driver() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_off(guard: Callable[..., Run]) -> None:
    done = guard("cu118-sm61", "--version", library=None, SDRUN_GUARD="off")
    assert (done.returncode, done.stdout) == (0, "sd-cli got: --version\n")
    assert guard("cu118-sm61", SDRUN_GUARD="on", STUB_GPUS="89").returncode == 4


def test_another_name(guard: Callable[..., Run]) -> None:
    done = guard("cu118-sm61", program="other", STUB_GPUS="61")
    assert (done.returncode, done.stderr) == (
        2,
        "sdrun guard: bad-option: there is no program named other in this image; the first one is /usr/bin/sd-cli\n",
    )


def test_jit_is_said_aloud(guard: Callable[..., Run]) -> None:
    done = guard("cu124-multi", STUB_GPUS="120", STUB_DRIVER="12080")
    assert (done.returncode, done.stdout) == (0, "ptx90 sd-cli got: \n")
    assert "the driver compiles its PTX" in done.stderr


@pytest.mark.parametrize(
    ("gpu", "program"), [("89", "sm89"), ("90", "sm90"), ("100", "ptx90"), ("89,90", "sm89"), ("90,89", "sm90")]
)
def test_each_gpu_gets_the_program_of_its_arch(guard: Callable[..., Run], gpu: str, program: str) -> None:
    for name in NAMES:
        done = guard("cu124-multi", "-p", "a cat", program=name, STUB_GPUS=gpu, STUB_DRIVER="12040")
        assert (done.returncode, done.stdout) == (0, f"{program} {name} got: -p a cat\n")
    assert guard("cu124-multi", SDRUN_GUARD="off", library=None).stdout == "sm89 sd-cli got: \n"


def test_a_program_that_is_not_there(tmp_path: Path, driver: Path) -> None:
    (tmp_path / "image").mkdir()
    root = install(tmp_path / "image", row("cu118-sm61"))
    (root / "programs" / "sd-cli").unlink()
    env = {"LD_LIBRARY_PATH": str(driver), "STUB_GPUS": "61"}
    done = subprocess.run([str(root / "bin" / "sd-cli")], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be started: No such file" in done.stderr) == (127, True)


def test_it_takes_less_than_50_ms(guard: Callable[..., Run]) -> None:
    """Its own work, the stand-in driver's included; a real cuInit costs what it costs the engine."""
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        assert guard("cu118-sm61", STUB_GPUS="61").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 0.05


@pytest.mark.parametrize("target", CUDA_ROWS, ids=lambda row: row.name)
def test_it_knows_what_the_resolver_knows(target: Target) -> None:
    """One verdict for each capability, the resolver's; and every target it would name is one that can be built."""
    facts = load_cuda_facts()
    header = guard_header(target, NAMES, facts)
    image = IndexImage("x", "", target.platform, target.toolkit, target.sass, target.ptx, target.fatbin_compression)
    for device in facts.capabilities:
        found = match(image, device, mixes=False, facts=facts)
        path = {"sass-exact": "EXACT", "sass-compatible": "COMPATIBLE", "ptx-jit": "JIT"}.get(found.path or "", "")
        assert f"    {{{device.number}, {path or ('MISMATCH' if 'engine' in str(found.barred) else 'NONE')}," in header
    if target.platform == "linux/amd64":
        ids = {str(row.id) for row in targets().rows}
        named = {part.split('"')[1] for part in header.splitlines() if part.startswith("    {") and '"cu' in part}
        assert {name for name in named if name not in ids} <= {"cu130-sm88"}  # no machine is known to have an 8.8


def test_newer_than_all_known(guard: Callable[..., Run]) -> None:
    newest = max(load_cuda_facts().capabilities)
    beyond = ComputeCapability(newest.major + 7, 0)
    assert guard("cu124-multi", STUB_GPUS=str(beyond.number), STUB_DRIVER="15000").returncode == 0
    assert guard("cu124-sm89", STUB_GPUS=str(beyond.number), STUB_DRIVER="15000").returncode == 4
