"""Do the engine and its PyTorch twin draw the same pictures, and does the judge say the same of them?

    python bench/shapes_twin.py ENGINE FILES [--prompts 20] [--seeds 3] [--pictures FOLDER] [--name shapes_twin]

ENGINE is a command that behaves like sd-cli, FILES the folder with shapes-*.gguf. The figures of models/shapes/measure.py come
from the twin, and this says how far they hold for the engine. The prompts are the kinds of measure.py in their proportions,
another draw. Pictures of the engine are kept in FOLDER; those that are there are not drawn again. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import record
from PIL import Image

from models.shapes.export import ROLES, networks
from models.shapes.judge import judge
from models.shapes.measure import prompts
from models.shapes.network import Size
from models.shapes.sampling import noise, pictures, sample
from models.shapes.twin import drawn

PIXELS = 256


def by_engine(engine: list[str], files: Path, kept: Path, name: str, prompt: str, seed: int) -> np.ndarray:
    """The engine's picture, drawn or kept."""
    path = kept / f"{name}.png"
    if not path.exists():
        drawn(engine, files, path, prompt, seed, PIXELS)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def main() -> None:
    """Draws with both, judges, compares, records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=shlex.split)
    parser.add_argument("files", type=Path)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--name", default="shapes_twin")
    options = parser.parse_args()
    text, transformer, autoencoder = networks(
        {role: (options.files / f"shapes-{role}.gguf").read_bytes() for role in ROLES}, Size()
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.pictures or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        for seed in range(1, options.seeds + 1):
            for number, (kind, prompt, spec) in enumerate(prompts(options.prompts, seed=2026)):
                theirs = by_engine(options.engine, options.files, kept, f"{number:02}-{seed}", prompt, seed)
                ours = pictures(autoencoder, sample(text, transformer, [prompt], noise([seed], PIXELS)))[0]
                apart = float(np.abs(ours.astype(float) - theirs).mean())
                rows.append((apart, judge(spec, theirs).ok, judge(spec, ours).ok))
                print(f"{apart:6.2f} of 255, engine {rows[-1][1]}, twin {rows[-1][2]}, {kind}: {prompt!r}", flush=True)
    apart = [row[0] for row in rows]
    figures = {
        "prompts": options.prompts,
        "seeds": options.seeds,
        "pictures": len(rows),
        "pixels": PIXELS,
        "right": {"engine": sum(row[1] for row in rows), "twin": sum(row[2] for row in rows)},
        "same_verdict": sum(row[1] == row[2] for row in rows),
        "mean_difference_of_255": {"median": round(statistics.median(apart), 2), "greatest": round(max(apart), 2)},
    }
    record.write(options.name, figures)


if __name__ == "__main__":
    main()
