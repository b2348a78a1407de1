"""How often the model draws what was asked: random prompts, several seeds each, judged by `judge.py`.

    python -m models.shapes.measure WEIGHTS OUT [--types f16 q4_0] [--prompts 200] [--seeds 3]

The pictures come from the PyTorch networks with the weights of the very GGUF files and the engine's noise and steps, so they
are the engine's up to rounding (twin.py). OUT gets measure.json and a contact sheet for each type.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from models.shapes.autoencoder import Autoencoder
from models.shapes.export import TYPES, files, load, networks
from models.shapes.grammar import read, say
from models.shapes.judge import Verdict, judge
from models.shapes.network import TEXT_LENGTH, Size, TextEncoder, Transformer
from models.shapes.sampling import noise, pictures, sample
from models.shapes.scene import Spec
from models.shapes.scene import sample as specification

# Of 200 prompts; "relation" is left, right, above, below.
MIX = {"single": 60, "relation": 60, "inside": 20, "pair": 20, "count": 20, "trio": 20}
PARTS = ("number", "color", "shape", "size", "position", "relation", "background")
SHEET = (
    "a red circle left of a blue square",
    "a yellow star above a green triangle",
    "a purple heart below an orange moon",
    "a small white star inside a large blue circle",
    "three pink hearts",
    "a yellow moon on a dark blue background",
    "a large orange triangle",
    "a small brown square in the top left corner",
    "four green diamonds on a beige background",
    "a black cross right of a red ring",
    "a red circle, a green square and a blue triangle",
    "a cyan ring inside a purple square",
    "two yellow stars on a blue background",
    "a pink diamond to the left of a brown cross",
    "a big green heart",
    "a blue ball on the right",
    "a red star on a black background",
    "a white heart and a red heart on a gray background",
    "an orange circle under a purple square",
    "a tiny red dot at the bottom",
    "a gray moon above a white star on a dark blue background",
    "a golden star",
    "a green cat",
    "",
)


def prompts(number: int, seed: int) -> list[tuple[str, str, Spec]]:
    """Random (kind, prompt, specification) in the proportions of MIX."""
    rng = random.Random(seed)
    total = sum(MIX.values())
    specs = [(kind, specification(rng, kind)) for kind, share in MIX.items() for _ in range(round(share * number / total))]
    return [(kind, say(spec, rng), spec) for kind, spec in specs]


def verdicts(pool: Pool, specs: Sequence[Spec], drawn: npt.NDArray[np.uint8]) -> list[Verdict]:
    """The judge's answers, in parallel."""
    return pool.starmap(judge, zip(specs, drawn, strict=True), chunksize=4)


def table(kinds: Sequence[str], found: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """kind -> share of pictures that show all that was asked, and of those that show each part, where it was asked for."""
    out = {}
    for kind in dict.fromkeys([*kinds, "all"]):
        of_kind = [verdict for name, verdict in zip(kinds, found, strict=True) if kind in (name, "all")]
        row = {"pictures": float(len(of_kind)), "ok": sum(verdict.ok for verdict in of_kind) / len(of_kind)}
        for part in PARTS:
            asked = [answer for verdict in of_kind if (answer := getattr(verdict, part)) is not None]
            if asked:
                row[part] = sum(asked) / len(asked)
        out[kind] = row
    return out


def show(rows: dict[str, dict[str, float]]) -> str:
    """The table as Markdown."""
    lines = ["| kind | pictures | all right | " + " | ".join(PARTS) + " |", "|" + "---|" * (3 + len(PARTS))]
    for kind, row in rows.items():
        cells = [f"{100 * row[part]:.0f}" if part in row else "" for part in PARTS]
        lines.append(f"| {kind} | {row['pictures']:.0f} | {100 * row['ok']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(
    text: TextEncoder,
    transformer: Transformer,
    autoencoder: Autoencoder,
    said: Sequence[str],
    seeds: Sequence[int],
    pixels: int,
    batch: int,
    length: int = TEXT_LENGTH,
) -> npt.NDArray[np.uint8]:
    """Pictures of prompts, one seed each, the text padded to `length`."""
    out = []
    for start in range(0, len(said), batch):
        part = slice(start, start + batch)
        out.append(pictures(autoencoder, sample(text, transformer, said[part], noise(seeds[part], pixels), length=length)))
    return np.concatenate(out)


def contact(drawn: npt.NDArray[np.uint8], columns: int, path: Path) -> None:
    """The pictures side by side as PNG, half their size."""
    small = drawn.reshape(len(drawn), drawn.shape[1] // 2, 2, -1, 2, 3).mean((2, 4)).astype(np.uint8)
    small = np.pad(small, ((0, -len(small) % columns), (2, 2), (2, 2), (0, 0)), constant_values=128)
    rows = small.reshape(-1, columns, *small.shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(path)


def measure(
    pool: Pool,
    weights: Path,
    out: Path,
    types: Sequence[str],
    number: int,
    seeds: int,
    device: torch.device,
    pixels: int,
    size: Size,
) -> dict[str, Any]:
    """Draws, judges, prints and records; gives what measure.json holds."""
    chosen = prompts(number, seed=2026)
    kinds, said, specs = ([row[part] for row in chosen for _ in range(seeds)] for part in range(3))
    numbers = [seed for _ in chosen for seed in range(1, seeds + 1)]
    loaded, answer, batch = load(weights), {}, 200 if device.type == "cuda" else 8
    for name in types:
        begin = time.monotonic()
        nets = networks(files(loaded, TYPES[name]), size)
        text, transformer, autoencoder = (net.to(device) for net in nets)
        drawn = draw(text, transformer, autoencoder, said, numbers, pixels, batch)
        rows = table(kinds, verdicts(pool, specs, drawn))
        answer[name] = rows
        print(f"{name}: {len(drawn)} pictures in {time.monotonic() - begin:.0f} s\n{show(rows)}", flush=True)
        sheet = draw(text, transformer, autoencoder, SHEET, range(1, len(SHEET) + 1), pixels, batch)
        contact(sheet, 6, out / f"sheet-{name}.png")
        found = verdicts(pool, [read(prompt) for prompt in SHEET[:22]], sheet[:22])
        print(f"contact sheet: {sum(verdict.ok for verdict in found)} of {len(found)} as asked", flush=True)
    (out / "measure.json").write_text(json.dumps(answer, indent=1) + "\n")
    return answer


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--types", nargs="+", choices=tuple(TYPES), default=["f16", "q4_0"])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=256)
    options = parser.parse_args()
    with get_context("fork").Pool() as pool:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        options.out.mkdir(parents=True, exist_ok=True)
        measure(
            pool, options.weights, options.out, options.types, options.prompts, options.seeds, device, options.pixels, Size()
        )


if __name__ == "__main__":
    main()
