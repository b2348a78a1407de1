"""Downloads from a hub on the loopback interface that cuts the connection: what is lost, what is fetched twice, what a wrong
file does; how fast it is; and what memory it takes to verify a file of 6 GB.

The hub is the one of the tests (tests/loopback). The large file is sparse: it has its size and its bytes, and takes no room.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from loopback.hub import Fault, Hub
from loopback.pulling import Pulling
from loopback.store import hub_file, model, random_bytes

from sdrun.errors import SdrunError
from sdrun.models.gguf import GgmlType, Tensor, encode

FILES, CUTS, SIZE = 10, 10, 1_000_003
LARGE = 6_000_000_000
SPEED_SIZE = 400_000_000


def cuts(reset: bool) -> dict[str, int]:
    """Ten files, each cut at every tenth; `reset`: by a reset, which throws away what was not read yet."""
    with tempfile.TemporaryDirectory() as folder, Hub() as hub:
        pulling = Pulling(Path(folder), hub)
        for number in range(FILES):
            path, data = f"them/small/{number}.gguf", random_bytes(SIZE, number)
            digest = hub.put(path, data)
            hub.script(path, *(Fault(cut=SIZE // (CUTS + 1), reset=reset) for _ in range(CUTS)))
            pulling(model(f"m{number}", {"diffusion": hub_file(path, digest)}))
        right = sum(data == random_bytes(SIZE, int(name[0])) for name, data in pulling.visible().items())
        return {
            "files": FILES,
            "connections_cut": len(hub.got("cdn", "GET")) - FILES,
            "files_whole": right,
            "files_lost": FILES - right,
            "bytes_of_files": FILES * SIZE,
            "bytes_sent": sum(hub.sent.values()),
            "bytes_fetched_twice": sum(hub.sent.values()) - FILES * SIZE,
            "partial_files_left": len(pulling.partials),
        }


def wrong() -> dict[str, int]:
    """Files of the right size whose bytes are wrong, each cut at another place."""
    accepted = refused = repaired = 0
    with tempfile.TemporaryDirectory() as folder, Hub() as hub:
        pulling = Pulling(Path(folder), hub)
        for number in range(FILES * CUTS):
            path, data = f"them/small/{number}.gguf", random_bytes(10_000, number)
            wanted = model(f"m{number}", {"diffusion": hub_file(path, hub.put(path, data))})
            hub.script(path, Fault(wrong=True, cut=100 * number), Fault(wrong=True))
            try:
                pulling(wanted)
                accepted += 1
            except SdrunError as fault:
                refused += fault.id == "hash-mismatch"
            pulling(wanted)
            repaired += pulling.visible()[f"{number}.gguf"] == data
    return {"files": FILES * CUTS, "wrong_accepted": accepted, "wrong_refused": refused, "right_on_the_next_run": repaired}


def speed() -> dict[str, float]:
    """One large file without faults: the whole pull, its check included."""
    seconds = []
    data = random_bytes(1_000_000) * (SPEED_SIZE // 1_000_000)
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder, Hub() as hub:
            wanted = model("m", {"diffusion": hub_file("a/b/c.gguf", hub.put("a/b/c.gguf", data))})
            begin = time.perf_counter()
            Pulling(Path(folder), hub)(wanted)
            seconds.append(time.perf_counter() - begin)
    return {"bytes": len(data), "seconds": round(statistics.median(seconds), 2), "runs": len(seconds)}


def verifying() -> dict[str, float]:
    """Peak resident memory of `sdrun models import` and `verify` of a GGUF file of 6 GB, beside that of the empty program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "large.gguf"
        file.write_bytes(encode([Tensor("x", GgmlType.F32, (8,), bytes(32))], {}))
        with file.open("r+b") as stream:
            stream.truncate(LARGE)
        environ = {**os.environ, "SDRUN_CACHE_DIR": name}
        program = [sys.executable, "-m", "sdrun"]
        empty, _ = peak([*program, "--version"], environ)
        imported, import_seconds = peak([*program, "models", "import", f"diffusion={file}"], environ)
        verified, verify_seconds = peak([*program, "models", "verify", "large"], environ)
    return {
        "bytes": LARGE,
        "peak_mib_of_the_empty_program": empty,
        "peak_mib_import": imported,
        "peak_mib_verify": verified,
        "seconds_import": import_seconds,
        "seconds_verify": verify_seconds,
    }


def peak(argv: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Peak resident memory of a process in MiB and its wall time in seconds. A small process starts it: what a child had before
    it became the program counts too."""
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2);"
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", measure, *argv], env=environ, check=True, stdout=subprocess.PIPE)
    return round(int(done.stdout) / 1024, 1), round(time.perf_counter() - begin, 2)


def main() -> None:
    """Measures and records."""
    figures = {
        "cut_at_every_tenth": cuts(reset=False),
        "reset_at_every_tenth": cuts(reset=True),
        "wrong_bytes_of_the_right_size": wrong(),
        "verify_6_gb": verifying(),
        "whole_pull": speed(),
    }
    record.write("downloads", figures)


if __name__ == "__main__":
    main()
