"""The inspector against NVIDIA's cuobjdump, its time and memory on large libraries, and a fuzz run.

    python bench/inspect_code.py compare CUOBJDUMP FILE...   [--record]
    python bench/inspect_code.py time SUBJECT...             [--record]
    python bench/inspect_code.py fuzz INPUTS                 [--record]

`compare` counts, per file, kind and arch, what both list. cuobjdump is NVIDIA's (PyPI: nvidia-cuda-cuobjdump; it is proprietary
and no part of this project); take an old one for old libraries: 13.x refuses a file that holds sm_35 and stops in the middle
of libcublas 12.4, and 12.4's calls five cubins of that library sm_50a, sm_60a and sm_61a, which no compiler makes. 11.8's
(package nvidia-cuda-toolkit of Debian 12's non-free) reads both. cuobjdump prints family code (`120f`) without its letter, so
letters f are left out of the comparison. Compared: nvidia-cublas-cu11 11.11.3.6, nvidia-cublas-cu12 12.4.5.8 and 12.9.1.4,
nvidia-cublas 13.0.2.14 and 13.10.0.20, each in a folder named after its version, and the fatbins and programs of the fixtures,
among which are the `a`, `f` and concat forms.

`time` takes time and peak memory of anything `sdrun inspect` takes: saved images, images of the container runtime.

`fuzz` reads INPUTS mutations (fixed seed) of the fixtures, as bare fatbins, ELF files, static libraries and saved images, and
counts how each ended; anything but a result or NotInspectable ends the run with its number. Time and memory are those of a
process of its own, `sdrun inspect --json`.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import record

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fatbins import files as samples

from sdrun.fatbin.carried import NotInspectable, can_hold_code, read_code
from sdrun.fatbin.saved import read_archive
from sdrun.fatbin.source import FileSource, MemorySource
from sdrun.fatbin.stream import ReadStream

LINE = re.compile(r"^(ELF|PTX) file +[0-9]+: .*\.sm_([0-9]+[af]?)\.(?:cubin|ptx)$")


def listed(cuobjdump: str, file: Path) -> tuple[Counter[tuple[str, str]], str]:
    """Entries that cuobjdump lists by kind and arch, and what it complained about."""
    counts: Counter[tuple[str, str]] = Counter()
    complaints = []
    for option in ("--list-elf", "--list-ptx"):
        done = subprocess.run([cuobjdump, option, str(file)], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if found := LINE.match(line):
                counts["cubin" if found[1] == "ELF" else "ptx", found[2].rstrip("f")] += 1
        complaints += [line for line in done.stderr.splitlines() if "fatal" in line or "error" in line.lower()]
    return counts, "; ".join(complaints)


def ours(file: Path) -> Counter[tuple[str, str]]:
    """Entries that the inspector lists, by kind and arch, letters f left out."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        code = read_code(FileSource(descriptor), str(file))
    finally:
        os.close(descriptor)
    counts: Counter[tuple[str, str]] = Counter()
    for (kind, arch), count in code.counts.items():
        if kind != "lto":
            counts[kind, str(arch).rstrip("f")] += count
    return counts


def as_a_process(subject: str) -> tuple[dict[str, object], dict[str, float]]:
    """The document of `sdrun inspect --json`; seconds, seconds of processor time, and peak resident MiB of that process."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sdrun", "inspect", subject, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    seconds, busy = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
    return json.loads(text), {
        "seconds": round(seconds, 2), "cpu_seconds": round(busy, 2), "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }  # fmt: skip


def compare(cuobjdump: str, files: list[Path]) -> dict[str, object]:
    """One row a file."""
    version = subprocess.run([cuobjdump, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([0-9.]+)", version)
    rows: dict[str, object] = {}
    for file in files:
        theirs, complaint = listed(cuobjdump, file)
        mine = ours(file)
        document, cost = as_a_process(str(file))
        name = f"{file.parent.name}/{file.name}"
        rows[name] = {
            "cuobjdump": release[1] if release else "?",
            "bytes": file.stat().st_size,
            "entries": sum(mine.values()),
            "cuobjdump_entries": sum(theirs.values()),
            "equal": mine == theirs,
            "differences": {
                f"{kind} {arch}": [mine[kind, arch], theirs[kind, arch]]
                for kind, arch in sorted(mine.keys() | theirs.keys())
                if mine[kind, arch] != theirs[kind, arch]
            },
            "cuobjdump_says": complaint,
            **cost,
            **{key: document[key] for key in ("sass", "ptx", "toolkit", "min_driver")},
        }
        print(name, json.dumps(rows[name]))
    return rows


def timed(subjects: list[str]) -> dict[str, object]:
    """Seconds and peak resident MiB, by the subject's last name."""
    rows: dict[str, object] = {}
    for subject in subjects:
        document, cost = as_a_process(subject)
        files = document["files"]
        assert isinstance(files, list)
        size = Path(subject).stat().st_size if Path(subject).exists() else None
        rows[Path(subject).name] = {"bytes": size, "files_with_code": len(files), **cost}
        print(subject, rows[Path(subject).name])
    return rows


def fuzz(inputs: int) -> dict[str, object]:
    """Mutates, reads, counts. The slowest input's seconds are recorded: an endless one would show."""
    draw = random.Random(20261122)
    originals = samples.every_form()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(inputs):
        form = draw.choice(sorted(originals))
        data = samples.mutated(originals[form], draw)
        begin = time.perf_counter()
        try:
            if can_hold_code(data[:8]):
                code = read_code(MemorySource(data), form)
                outcome = "read, damage told" if code.faults else "read"
            else:
                outcome = f"image of {len(read_archive(ReadStream(io.BytesIO(data).read)))} files"
        except NotInspectable:
            outcome = "not inspectable"
        except Exception:
            print(f"input {number} ({form})")
            raise
        slowest = max(slowest, time.perf_counter() - begin)
        outcomes[outcome] += 1
    return {"inputs": inputs, "forms": sorted(originals), "outcomes": dict(outcomes), "slowest_seconds": round(slowest, 3)}


def main() -> None:
    """Runs what was asked for; with --record, merged into bench/results/inspect.json."""
    words = [word for word in sys.argv[1:] if word != "--record"]
    path = record.RESULTS / "inspect.json"
    known = json.loads(path.read_text())["figures"] if path.exists() else {}
    if words[:1] == ["compare"] and len(words) > 2:
        known["compared"] = known.get("compared", {}) | compare(words[1], [Path(word) for word in words[2:]])
    elif words[:1] == ["time"] and len(words) > 1:
        known["timed"] = known.get("timed", {}) | timed(words[1:])
    elif words[:1] == ["fuzz"] and len(words) == 2:
        known["fuzz"] = fuzz(int(words[1]))
        print(json.dumps(known["fuzz"]))
    else:
        sys.exit(__doc__)
    if "--record" in sys.argv:
        print(record.write("inspect", known))


if __name__ == "__main__":
    main()
