"""How long the engine by itself takes to a picture of the model shapes: no container, no sdrun.

    python bench/shapes_bare.py SD_CLI [--runs 5] [--device NAME] [--name NAME]

Each run is a process of its own, 256x256, 8 steps. `wall` is the whole process; `sampling` and `picture` (text, sampling,
decoding) are what the engine says of itself: the rest is starting, on a GPU mostly CUDA, and loading. The first run finds its
files on the disk and stands by itself. The pictures must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import record

WEIGHTS = record.ROOT / "models" / "shapes" / "weights"
PROMPT = "a red circle left of a blue square"
SPANS = {"sampling": r"sampling completed, taking ([0-9.]+)s", "picture": r"generate_image completed in ([0-9.]+)s"}


def drawn(engine: Path, picture: Path) -> dict[str, float]:
    """Seconds of one run. SystemExit when the engine fails."""
    words = ["-p", PROMPT, "-W", "256", "-H", "256", "--steps", "8", "--cfg-scale", "1", "--seed", "42", "-o", str(picture)]
    for option, role in (("--diffusion-model", "diffusion"), ("--llm", "llm"), ("--tae", "tae")):
        words += [option, str(WEIGHTS / f"shapes-{role}.gguf")]
    begin = time.perf_counter()
    done = subprocess.run([str(engine), *words, "--sampling-method", "euler"], capture_output=True, check=False)
    wall = time.perf_counter() - begin
    log = (done.stdout + done.stderr).decode(errors="replace")
    found = {name: re.search(pattern, log) for name, pattern in SPANS.items()}
    if done.returncode or not picture.exists():
        sys.exit(f"the engine ended with {done.returncode}: {log[-600:]}")
    return {"wall": round(wall, 2), **{name: float(match[1]) for name, match in found.items() if match}}


def main(arguments: Sequence[str]) -> None:
    """See the module's own words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="")
    parser.add_argument("--name", default="shapes_bare")
    options = parser.parse_args(arguments)
    pictures = set()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "x.png"
        runs = []
        for _ in range(options.runs):
            runs.append(drawn(options.engine.resolve(), picture))
            pictures.add(hashlib.sha256(picture.read_bytes()).hexdigest())
    later = runs[1:] or runs
    figures = {
        "engine": options.engine.name,
        "first_s": runs[0],
        "median_s": {name: round(statistics.median(run[name] for run in later), 2) for name in runs[0]},
        "runs": len(runs),
        "different_pictures": len(pictures),
    }
    record.write(options.name, figures, options.device or None)


if __name__ == "__main__":
    main(sys.argv[1:])
