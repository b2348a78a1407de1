"""What kind of machine this is: its platform, WSL2 or Tegra."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_L4T = re.compile(r"#\s*R([0-9]{1,3})\s*\(release\)\s*,\s*REVISION:\s*([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Machine:
    """`platform` as OCI writes it (`linux/amd64`); `tegra`: L4T release (`"36.4"`) or None; `memory_mib`: RAM, which is GPU
    memory too on a Tegra, 0 where unknown."""

    platform: str
    wsl: bool
    tegra: str | None
    memory_mib: int


def read_machine(root: Path) -> Machine:
    """Reads four small files under `root`; the architecture is the running kernel's."""
    release = read_text(root / "proc/sys/kernel/osrelease")
    return Machine(
        platform=platform_of(os.uname().machine),
        wsl=(root / "dev/dxg").exists() or "microsoft" in release.lower(),
        tegra=parse_l4t(read_text(root / "etc/nv_tegra_release")),
        memory_mib=parse_memory(read_text(root / "proc/meminfo")),
    )


def read_text(path: Path, limit: int = 1 << 16) -> str:
    """At most `limit` bytes of a small text file, or "" where it cannot be read (a driver's file may refuse at any time)."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def platform_of(machine: str) -> str:
    """`linux/amd64` for `x86_64`, `linux/arm64` for `aarch64`; other machines keep the kernel's name."""
    return f"linux/{_ARCHITECTURES.get(machine.lower(), machine.lower())}"


def parse_l4t(text: str) -> str | None:
    """ "36.4" from `# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 ...`,
    the first line of /etc/nv_tegra_release."""
    match = _L4T.search(text)
    return f"{int(match[1])}.{int(match[2])}" if match else None


def parse_memory(text: str) -> int:
    """MiB of RAM from `MemTotal:       32088460 kB` in /proc/meminfo; 0 where it is not there."""
    match = re.search(r"^MemTotal:\s*([0-9]{1,15}) kB", text, re.MULTILINE | re.ASCII)
    return int(match[1]) // 1024 if match else 0
