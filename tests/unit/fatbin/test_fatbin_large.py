"""A library of 600 MB and six thousand entries, as large as NVIDIA's largest: 3 seconds, 150 MB."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fatbins.files import Piece, cubin_head

ENTRIES, EACH = 6000, 100 << 10
START = 4096
# In a small process of its own: what a child has of memory is counted from its birth as a copy of its parent.
MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "sdrun", "inspect", sys.argv[1], "--json"], stdout=subprocess.PIPE, check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump((json.loads(done.stdout), usage.ru_utime + usage.ru_stime, usage.ru_maxrss), sys.stdout)
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """An ELF file whose payloads are holes: as long as the real thing, and on disk a few megabytes."""
    names = b"\0.nv_fatbin\0.shstrtab\0"
    size = 16 + ENTRIES * (64 + EACH)
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, START, size, 0, 0, 8, 0),
        struct.pack("<IIQQQQIIQQ", names.index(b".shstrtab"), 3, 0, 0, 64 + 3 * 64, len(names), 0, 0, 1, 0),
    ]
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 3, 2)
    path = tmp_path / "libLarge.so"
    with path.open("wb") as file:
        file.write(head + b"".join(sections) + names)
        file.seek(START)
        file.write(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, size - 16))
        for number in range(ENTRIES):
            kind, sm = ("ptx", 120) if number % 20 == 0 else ("cubin", (75, 80, 86, 89, 90, 100, 120)[number % 7])
            piece = Piece(kind, sm, payload=cubin_head(130) + bytes(EACH - 64), version=(9, 0) if kind == "ptx" else (1, 7))
            file.write(piece.packed()[: 64 + 64])
            file.seek(EACH - 64, os.SEEK_CUR)
        file.truncate(START + size)
    return path


def test_time_and_memory(library: Path) -> None:
    assert library.stat().st_size > 600_000_000
    done = subprocess.run([sys.executable, "-c", MEASURED, library], stdout=subprocess.PIPE, check=True)
    document, seconds, kib = json.loads(done.stdout)
    assert document["files"][0]["entries"] == ENTRIES
    assert (document["sass"], document["ptx"], document["toolkit"]) == (
        ["75", "80", "86", "89", "90", "100", "120"],
        ["120"],
        "13.0",
    )
    assert seconds < 3  # of the processor: the machine may be busy with other tests
    assert kib < 150 * 1024
