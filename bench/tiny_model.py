"""The model tiny: how large, how long to make, how its pictures answer to prompt and seed, what the engine takes for one.

Needs docker and the cpu image (`sdrun build cpu`). The engine's time is its process's wall time by the container runtime's
clock, without the start of the container.
"""

from __future__ import annotations

import lzma
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from pathlib import Path

import record
from PIL import Image, ImageChops, ImageStat

from sdrun.catalog.models import models
from sdrun.models.tiny import build, write

IMAGE = "sdrun:sdcpp-90e87bc-cpu"
PROMPTS = ("a red cat on a mat", "a red dog on a mat", "a blue house under a tree", "portrait of an old sailor, oil painting")
SEEDS = (42, 7, 1, 2)
RUNS = 5


def draw(folder: Path, prompt: str, seed: int) -> tuple[bytes, float]:
    """The PNG and the engine's wall time in seconds."""
    defaults = models()["tiny"].defaults
    name = f"bench-tiny-{os.getpid()}"
    argv = ["docker", "run", "--name", name, "--network=none", f"--user={os.getuid()}:{os.getgid()}", "-v", f"{folder}:/m"]
    argv += [IMAGE, "--diffusion-model", "/m/tiny-diffusion.gguf", "--llm", "/m/tiny-llm.gguf", "--tae", "/m/tiny-tae.gguf"]
    argv += ["-p", prompt, "-s", str(seed), "--steps", str(defaults.steps), "--cfg-scale", str(defaults.cfg_scale)]
    argv += ["-W", str(defaults.width), "-H", str(defaults.height), "-o", "/m/picture.png"]
    inspect = ["docker", "inspect", "--format", "{{.State.StartedAt}} {{.State.FinishedAt}}", name]
    try:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.split()
    finally:
        subprocess.run(["docker", "rm", "--force", name], stdout=subprocess.DEVNULL, check=False)
    begin, end = (datetime.fromisoformat(f"{moment[:26].rstrip('Z'):0<26}") for moment in times)  # nanoseconds cut off
    return (folder / "picture.png").read_bytes(), (end - begin).total_seconds()


def difference(one: Path, other: Path) -> float:
    """Mean absolute difference of all colour values, 0..255."""
    with Image.open(one) as a, Image.open(other) as b:
        return statistics.fmean(ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean)


def deviation(path: Path) -> float:
    """Standard deviation of all colour values."""
    with Image.open(path) as picture:
        values = picture.convert("RGB").tobytes()
    mean = statistics.fmean(values)
    return math.sqrt(statistics.fmean((value - mean) ** 2 for value in values))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median and greatest."""
    return {"least": round(min(values), 2), "median": round(statistics.median(values), 2), "greatest": round(max(values), 2)}


def sizes() -> dict[str, dict[str, int]]:
    """Bytes of each file, plain and as xz."""
    files = {role: build(role) for role in models()["tiny"].files}
    return {role: {"bytes": len(data), "bytes_xz": len(lzma.compress(data))} for role, data in files.items()}


def main() -> None:
    """Measures and records."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        making = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            write(folder)
            making.append(time.perf_counter() - begin)
        pictures: dict[tuple[str, int], Path] = {}
        engine = []
        for prompt in PROMPTS:
            for seed in SEEDS:
                data, seconds = draw(folder, prompt, seed)
                engine.append(seconds)
                pictures[prompt, seed] = folder / f"{len(engine)}.png"
                pictures[prompt, seed].write_bytes(data)
        again, _ = draw(folder, PROMPTS[0], SEEDS[0])
        figures = {
            "files": sizes(),
            "seconds_to_make_all": spread(making),
            "engine_seconds_256x256_8_steps": spread(engine),
            "same_command_twice_same_bytes": again == pictures[PROMPTS[0], SEEDS[0]].read_bytes(),
            "deviation_of_pixels": spread([deviation(path) for path in pictures.values()]),
            "difference_by_prompt_same_seed": spread(
                [difference(pictures[a, seed], pictures[b, seed]) for a, b in combinations(PROMPTS, 2) for seed in SEEDS]
            ),
            "difference_by_one_word_same_seed": spread(
                [difference(pictures[PROMPTS[0], seed], pictures[PROMPTS[1], seed]) for seed in SEEDS]
            ),
            "difference_by_seed_same_prompt": spread(
                [difference(pictures[prompt, a], pictures[prompt, b]) for a, b in combinations(SEEDS, 2) for prompt in PROMPTS]
            ),
        }
    record.write("tiny_model", figures)


if __name__ == "__main__":
    main()
