"""Stub driver libraries, compiled once, and a stub nvidia-smi: they play a driver's cases through the real binding, the real
loader and the real child process. They need a C compiler and no container runtime."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "fixtures/probe"


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libnvidia-ml.so.1 and libcuda.so.1, to be named in LD_LIBRARY_PATH."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stub libraries")
    folder = tmp_path_factory.mktemp("driver")
    for source, soname in (("stub_nvml.c", "libnvidia-ml.so.1"), ("stub_cuda.c", "libcuda.so.1")):
        output = folder / soname
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{soname}"]
        subprocess.run([compiler, *flags, "-o", str(output), str(SOURCES / source)], check=True)
    return folder


@pytest.fixture
def empty_root(tmp_path: Path) -> Path:
    """A host root without any trace of a driver, so that the machine the tests run on does not show through."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def make_smi(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Writes a shell script as nvidia-smi and gives the environment whose PATH leads to it. In the script `$1` is the query."""

    def make(script: str) -> dict[str, str]:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        return {"PATH": f"{folder}:/usr/bin:/bin"}

    return make
