"""The inspector against NVIDIA's cuobjdump on NVIDIA's own libraries: hundreds of megabytes, so not part of `make test`.

Get cuobjdump (PyPI: nvidia-cuda-cuobjdump; an old one for old libraries, see bench/inspect_code.py) and unpack a wheel such as
nvidia-cublas 13.0.2.14, then:

    SDRUN_CUOBJDUMP=.../cuobjdump SDRUN_ORACLE_FILES=libcublas.so.13:libcublasLt.so.13 \\
        pytest -m slow tests/integration/test_inspect_oracle.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sdrun.fatbin.carried import read_code
from sdrun.fatbin.source import FileSource

LINE = re.compile(r"^(ELF|PTX) file +[0-9]+: .*\.sm_([0-9]+a?)f?\.(?:cubin|ptx)$", re.MULTILINE)
FILES = [Path(name) for name in os.environ.get("SDRUN_ORACLE_FILES", "").split(":") if name]
CUOBJDUMP = os.environ.get("SDRUN_CUOBJDUMP", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (FILES and CUOBJDUMP), reason="SDRUN_CUOBJDUMP and SDRUN_ORACLE_FILES")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_lists_what_cuobjdump_lists(file: Path) -> None:
    texts = [
        subprocess.run([CUOBJDUMP, option, file], capture_output=True, text=True, check=False).stdout
        for option in ("--list-elf", "--list-ptx")
    ]
    theirs = Counter(("cubin" if kind == "ELF" else "ptx", arch) for text in texts for kind, arch in LINE.findall(text))
    with file.open("rb") as opened:
        code = read_code(FileSource(opened.fileno()), file.name)
    ours: Counter[tuple[str, str]] = Counter()
    for (kind, arch), count in code.counts.items():
        if kind != "lto":
            ours[kind, str(arch).rstrip("f")] += count  # cuobjdump leaves out the letter f
    assert ours == theirs
    assert code.faults == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_under_three_seconds_and_150_mib(file: Path) -> None:
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sdrun", "inspect", file, "--json"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert time.perf_counter() - begin < 3
    assert usage.ru_maxrss < 150 * 1024
