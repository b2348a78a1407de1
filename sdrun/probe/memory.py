"""How much memory is free right now: of a GPU by nvidia-smi, of the host by /proc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_LIMIT_S = 5.0
_QUERY = ("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")


def free_gpu_mib(uuid: str) -> int | None:
    """Free memory of the GPU with that UUID, in MiB; None where nvidia-smi is missing, slow or says nothing of it (as of a MIG
    slice)."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, check=False, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_free(done.stdout.decode(errors="replace")).get(uuid) if done.returncode == 0 else None


def parse_free(text: str) -> dict[str, int]:
    """MiB by UUID from lines such as `GPU-5f1c..., 80991`; a line of another form is passed over.

    >>> parse_free("GPU-1, 80991\\nGPU-2, [N/A]\\n")
    {'GPU-1': 80991}
    """
    pairs = (line.split(",") for line in text.splitlines() if line.count(",") == 1)
    return {uuid.strip(): int(free) for uuid, free in pairs if free.strip().isascii() and free.strip().isdigit()}


def free_host_mib(root: Path = Path("/")) -> int | None:
    """RAM and swap that programs can still get, in MiB; None where the kernel does not say."""
    try:
        text = (root / "proc" / "meminfo").read_text()
    except OSError:
        return None
    return parse_meminfo(text)


def parse_meminfo(text: str) -> int | None:
    """MemAvailable and SwapFree of /proc/meminfo together, in MiB (the file counts in kB, which are KiB).

    >>> parse_meminfo("MemTotal: 4096 kB\\nMemAvailable:    2048 kB\\nSwapFree: 1024 kB\\n")
    3
    """
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if name in ("MemAvailable", "SwapFree") and number and number[0].isdigit():
            found[name] = int(number[0])
    return None if "MemAvailable" not in found else sum(found.values()) // 1024
