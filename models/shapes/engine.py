"""Pictures by the real engine: one run of `sdrun generate` each, in the closed container that users get."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.shapes.seeing import Picture


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture, the device it was drawn on, and how long that took: the engine alone and the whole command, in seconds."""

    picture: Picture
    device: str
    engine_seconds: float
    seconds: float


def draw(prompt: str, seed: int, folder: Path, model: str, options: Sequence[str], engine: Sequence[str] = ()) -> Drawn:
    """Draws with `model`; `options` are for sdrun (`--gpu`, `--allow-cpu`, `--image`), `engine` for the engine. Raises
    subprocess.CalledProcessError where it fails, whose output stands on stderr."""
    file = folder / "picture.png"
    argv = [sys.executable, "-m", "sdrun", "--quiet", "generate", "--json", "-m", model, "-p", prompt, "--seed", str(seed)]
    done = subprocess.run([*argv, "-o", str(file), *options, "--", *engine], check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return Drawn(pixels, answer["device"], answer["seconds"]["engine"], answer["seconds"]["total"])
