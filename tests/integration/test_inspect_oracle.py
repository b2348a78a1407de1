"""The inspector against NVIDIA's own cuobjdump: on the fixtures always, and on NVIDIA's libraries where somebody names some.

cuobjdump comes with the development requirements (it is proprietary, and no part of this project). For libraries of hundreds of
megabytes unpack a wheel such as nvidia-cublas 13.0.2.14 (an old one needs an old cuobjdump, see bench/inspect_code.py), then:

    SDRUN_CUOBJDUMP=.../cuobjdump SDRUN_ORACLE_FILES=libcublas.so.13:libcublasLt.so.13 \\
        pytest tests/integration/test_inspect_oracle.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import pytest
from fatbins.files import FIXTURES

from sdrun.fatbin.carried import read_code
from sdrun.fatbin.source import FileSource

LINE = re.compile(r"^(ELF|PTX) file +[0-9]+: .*\.sm_([0-9]+a?)f?\.(?:cubin|ptx)$", re.MULTILINE)
OURS = sorted(FIXTURES.glob("*.fatbin")) + sorted(FIXTURES.glob("cu118-program*"))
LARGE = [Path(name) for name in os.environ.get("SDRUN_ORACLE_FILES", "").split(":") if name]


def cuobjdump() -> str | None:
    """The program: the one that is named, else that of the development requirements."""
    folder = Path(sysconfig.get_path("purelib")) / "nvidia"
    installed = sorted(folder.glob("cu*/bin/cuobjdump"))
    return os.environ.get("SDRUN_CUOBJDUMP") or (str(installed[-1]) if installed else None)


@pytest.mark.skipif(cuobjdump() is None, reason="NVIDIA has no wheel of cuobjdump for this machine")
@pytest.mark.parametrize("file", OURS + LARGE, ids=lambda file: file.name)
def test_lists_what_cuobjdump_lists(file: Path) -> None:
    program = cuobjdump()
    assert program is not None
    texts = [
        subprocess.run([program, option, file], capture_output=True, text=True, check=False).stdout
        for option in ("--list-elf", "--list-ptx")
    ]
    theirs = Counter(("cubin" if kind == "ELF" else "ptx", arch) for text in texts for kind, arch in LINE.findall(text))
    with file.open("rb") as opened:
        code = read_code(FileSource(opened.fileno()), file.name)
    ours: Counter[tuple[str, str]] = Counter()
    for (kind, arch), count in code.counts.items():
        if kind != "lto":
            ours[kind, str(arch).rstrip("f")] += count  # of cubins cuobjdump leaves out the letter f
    assert ours == theirs
    assert ours.total() > 0
    assert code.faults == ()


def test_the_fixtures_hold_every_form() -> None:
    """Plain, `a` and `f` archs, every compression, and nvcc's concat groups, which name one place for several entries."""
    suffixes, compressions, grouped = set(), set(), False
    for file in OURS:
        with file.open("rb") as opened:
            code = read_code(FileSource(opened.fileno()), file.name)
        suffixes |= {arch.suffix for _, arch in code.counts}
        compressions.add(code.compression)
        grouped |= "concat" in file.name
    assert (suffixes, compressions, grouped) == ({"", "a", "f"}, {"none", "lz4", "zstd"}, True)


@pytest.mark.slow
@pytest.mark.skipif(not LARGE, reason="names of libraries in SDRUN_ORACLE_FILES")
@pytest.mark.parametrize("file", LARGE, ids=lambda file: file.name)
def test_under_three_seconds_and_150_mib(file: Path) -> None:
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sdrun", "inspect", file, "--json"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert time.perf_counter() - begin < 3
    assert usage.ru_maxrss < 150 * 1024
