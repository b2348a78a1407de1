"""The rules of resolving once more, written from the contract and in another way than sdrun.core: plain strings and tuples, one
candidate piece of code at a time, with its own copy of the few numbers. Tests hold the two against each other."""

from __future__ import annotations

from typing import Any

FLOORS = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
ZSTD = (550, 54, 14)
FAMILIES = {
    "100f": {"10.0", "10.3", "10.7"},
    "103f": {"10.3", "10.7"},
    "107f": {"10.7"},
    "110f": {"11.0"},
    "120f": {"12.0", "12.1"},
    "121f": {"12.1"},
    "101f": {"10.1"},
}
TEGRA = {"5.3", "6.2", "7.2", "8.7", "8.8", "10.1"}
LAST_580 = {"5.0", "5.2", "6.0", "6.1", "7.0"}
SPEAKS = {
    390: (9, 1), 450: (11, 0), 455: (11, 1), 460: (11, 2), 465: (11, 3), 470: (11, 4), 495: (11, 5), 510: (11, 6), 515: (11, 7),
    520: (11, 8), 525: (12, 0), 530: (12, 1), 535: (12, 2), 545: (12, 3), 550: (12, 4), 555: (12, 5), 560: (12, 6),
    565: (12, 7), 570: (12, 8), 575: (12, 9), 580: (13, 0), 590: (13, 1), 595: (13, 2), 610: (13, 3), 615: (13, 4),
}  # fmt: skip


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def dotted(arch: str) -> str:
    digits = arch.rstrip("af")
    return f"{digits[:-1]}.{digits[-1]}"


def spoken(host: dict[str, Any]) -> tuple[int, ...]:
    if host["cuda_driver"] is not None:
        return numbers(host["cuda_driver"])
    branch = numbers(host["driver_version"])[0]
    return max((cuda for number, cuda in SPEAKS.items() if number <= branch), default=(0, 0))


def code_path(cc: str, host: dict[str, Any], image: dict[str, Any], *, jit: bool = True) -> str | None:
    """The path by which `image` runs on a GPU of that host, or None. For hosts that are no Jetson and know their driver."""
    if image["platform"] != host["platform"] or image["toolkit"] is None:
        return None
    toolkit = numbers(image["toolkit"])
    if cc == "10.1" and toolkit >= (13, 0):
        cc = "11.0"
    device = numbers(cc)
    sass = [arch for arch in image["sass"] if _sass_runs(arch, cc)]
    ptx = [arch for arch in image["ptx"] if _ptx_compiles(arch, cc)]
    if not sass and not ptx:
        return None
    loads = max(numbers(dotted(arch)) for arch in (sass or ptx))
    expects = max(n for arch in image["sass"] + image["ptx"] if (n := numbers(dotted(arch))) <= device)
    if loads != expects:
        return None
    driver = numbers(host["driver_version"])
    floor = FLOORS.get(toolkit[0])
    if (driver < floor) if floor else (spoken(host) < toolkit):
        return None
    if image["fatbin_compression"] == "zstd" and driver < ZSTD:
        return None
    if not sass:
        return "ptx-jit" if jit and spoken(host) >= toolkit else None
    return "sass-exact" if loads == device else "sass-compatible"


def _sass_runs(arch: str, cc: str) -> bool:
    made, device = dotted(arch), numbers(cc)
    if arch.endswith("a"):
        return made == cc
    if arch.endswith("f"):
        return made == cc or (cc in FAMILIES.get(arch, ()) and numbers(made) <= device)
    if made == cc:
        return True
    return numbers(made)[0] == device[0] and numbers(made)[1] <= device[1] and (made in TEGRA) == (cc in TEGRA)


def _ptx_compiles(arch: str, cc: str) -> bool:
    if arch.endswith("a") or numbers(dotted(arch)) > numbers(cc):
        return False
    return not arch.endswith("f") or dotted(arch) == cc or cc in FAMILIES.get(arch, ())
