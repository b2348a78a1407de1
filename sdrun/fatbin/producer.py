"""Which toolkit made a cubin: up to ABI 7 its ELF header says so (`e_version` 124 is 12.4), from ABI 8 on (13.0, and 12.8 for
sm_100 and later) the tools leave their release in a note. Measured on the output of ptxas 11.8, 12.4, 12.9 and 13.0."""

from __future__ import annotations

import re
import struct

from sdrun.core.version import CudaVersion
from sdrun.fatbin import elf, lz4, zstd
from sdrun.fatbin.container import Entry
from sdrun.fatbin.source import Source

_RELEASE = re.compile(rb"Cuda compilation tools, release ([0-9]{1,3}\.[0-9]{1,3}), V")
_HEAD = 24  # up to e_version
_HEAD_STORED = 64  # an lz4 block shows its first 24 bytes within these; a longer match run is given up on
MAX_STORED = 256 * 1024  # cubins above this are not unpacked: plain Python would take seconds
_MAX_SIZE = 2 << 20


def quick_toolkit(source: Source, entry: Entry) -> CudaVersion | None:
    """The toolkit of a raw or lz4 cubin from its first bytes, or None where they do not say it."""
    data = source.read(entry.offset, min(_HEAD_STORED, entry.stored))
    try:
        head = lz4.decompress(data, _HEAD) if entry.compression == "lz4" else data
    except lz4.Corrupt:
        return None
    return _from_header(head) if entry.compression != "zstd" else None


def thorough_toolkit(source: Source, entry: Entry) -> CudaVersion | None:
    """The toolkit of a cubin of at most MAX_STORED bytes, unpacked for it, or None where nothing says it."""
    data = source.read(entry.offset, min(entry.stored, MAX_STORED))
    try:
        if entry.compression == "lz4":
            data = lz4.decompress(data, _MAX_SIZE)
        elif entry.compression == "zstd":
            data = zstd.decompress(data, _MAX_SIZE)
    except lz4.Corrupt:
        return None
    release = _RELEASE.search(data)
    return CudaVersion.parse(release[1].decode()) if release else _from_header(data)


def _from_header(head: bytes) -> CudaVersion | None:
    if len(head) < _HEAD or not elf.is_elf(head):
        return None
    machine, number = struct.unpack_from("<HI", head, 18)
    return CudaVersion(number // 10, number % 10) if machine == elf.EM_CUDA and 50 <= number <= 999 else None
