"""Every measurement that needs a GPU, one after the other: `make bench-gpu`.

    python bench/gpu.py [--only NAME,NAME] [--weights FOLDER] [--seconds 3600] [--list]

Needs a GPU, Docker with CDI and an image that runs there; the parts that need more (images of bench/control_images.py) say so
and are passed over without it. A part that fails or takes too long loses nothing of the others. Results lie where OUT_DIR says,
else in bench/results/. Random weights are written into FOLDER (8 GB; made and removed where none is named).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record  # noqa: E402
from bare import wrapped  # noqa: E402
from control_images import REPOSITORY  # noqa: E402

from sdrun.launch.choosing import Fetching, Wishes, choose  # noqa: E402
from sdrun.runtime import connect  # noqa: E402

PTX_ONLY = f"{REPOSITORY}:ptx80"
SHALLOW, DEEP = ("--double", "2", "--single", "4", "--types", "q4_0"), ("--double", "5", "--single", "10")


@dataclass(frozen=True)
class Place:
    """What the parts work with: the engine on this machine without a container, the folder of weights, the GPU's name."""

    engine: Path
    weights: Path
    device: str

    def flux(self, name: str, words: Sequence[str]) -> Path:
        """Random weights, made where they are not there yet. Raises subprocess.CalledProcessError."""
        folder = self.weights / name
        if not (folder / "clip_l.gguf").exists():
            subprocess.run([sys.executable, str(ROOT / "bench/flux_weights.py"), str(folder), *words], check=True)
        return folder


@dataclass(frozen=True)
class Part:
    """One measurement: its command below the root, what images it needs besides, and when it is given up."""

    name: str
    what: str
    command: Callable[[Place], Sequence[str]]
    images: tuple[str, ...] = ()
    limit_s: int = 600


PARTS = (
    Part("end-to-end", "tests/gpu", lambda place: ("-m", "pytest", "-q", "-m", "gpu", "tests/gpu")),
    Part(
        "selftest",
        "bounds of the self-test",
        lambda place: (
            *("bench/selftest.py", "bare", str(place.engine)),
            *("--device", place.device, "--record", record.slug(place.device)),
        ),
    ),
    Part("shapes", "how often shapes draws what was asked", lambda place: ("bench/shapes.py", "--gpu", "auto")),
    Part("overhead", "what the launcher adds", lambda place: ("bench/overhead.py", "--gpu", "--record")),
    Part(
        "cold-start",
        "from the command to the picture",
        lambda place: ("bench/cold_start.py", "--flux", str(place.flux("shallow", SHALLOW))),
    ),
    Part("jit", "compiled kernels, kept", lambda place: ("bench/jit_cache.py", "--image", PTX_ONLY), (PTX_ONLY,)),
    Part(
        "failures",
        "images that do not suit the GPU",
        lambda place: ("bench/failures.py", "--flux", str(place.flux("shallow", SHALLOW))),
    ),
    Part(
        "fit",
        "estimates of memory",
        lambda place: (
            *("bench/fit.py", "--engine", str(place.engine)),
            *("--out", str(record.out_folder() / f"fit_{record.slug(place.device)}.json")),
        ),
    ),
    Part(
        "speed",
        "steps a second, option by option",
        lambda place: ("bench/speed.py", str(place.flux("deep", DEEP)), "--engine", f"shipped={place.engine}"),
        limit_s=1200,
    ),
)


def run(part: Part, place: Place, seconds: float) -> str:
    """Runs the part to its end; how it ended, in a word or two."""
    there = {tag for image in connect("docker").images() for tag in image.tags}
    if lacking := [image for image in part.images if image not in there]:
        return f"passed over: needs {', '.join(lacking)} (bench/control_images.py)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    try:
        argv = [sys.executable, *part.command(place)]
    except subprocess.CalledProcessError as fault:
        return f"failed: {fault.cmd[1]} ended with {fault.returncode}"
    process = subprocess.Popen(argv, cwd=ROOT, env=environ, start_new_session=True)
    try:
        code = process.wait(min(part.limit_s, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        return "failed: took too long and was ended"
    return "done" if code == 0 else f"failed: exit {code}"


def main() -> int:
    """Runs what was asked for, and prints how each part ended; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--weights", type=Path, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=3600, help="after which no part is begun and the last one is ended")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [part.name for part in PARTS]
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{part.name:<12}{part.what}" for part in PARTS))
        return 0
    facts, until = record.gpu_facts(), time.monotonic() + options.seconds
    ended: dict[str, tuple[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        runtime = connect("docker")
        image = choose(lambda: runtime, Wishes(), Fetching(pull=False)).local
        assert image is not None  # nothing was to be pulled, so it is here
        place = Place(wrapped(image, Path(folder)), options.weights or Path(folder), str(facts["device"]))
        for part in PARTS:
            if part.name not in names:
                continue
            print(f"== {part.name}: {part.what}", file=sys.stderr, flush=True)
            begin = time.monotonic()
            left = until - begin
            how = run(part, place, left) if left > 0 else "passed over: no time left"
            ended[part.name] = (how, time.monotonic() - begin)
    for name, (how, seconds) in ended.items():
        print(f"{name:<12}{seconds:7.1f} s  {how}")
    return 1 if any(how.startswith("failed") for how, _ in ended.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
