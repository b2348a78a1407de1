"""Do the PyTorch networks and the engine draw the same picture from the same weights and seed?

    python -m models.shapes.twin ENGINE [WEIGHTS] [--type f32|f16|q4_0] [--pixels 256]

ENGINE is a command that behaves like sd-cli. WEIGHTS is a folder with what train.py leaves, or with the GGUF files, which are
taken as they are, whatever --type (then only the bound) says. Without it the networks get random weights, so this can be asked
before any training. Prints the mean absolute difference of all colour values, 0..255, for each prompt; more than the bound
fails.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.shapes.autoencoder import Autoencoder
from models.shapes.export import ROLES, TYPES, files, load, named, networks
from models.shapes.network import Size, TextEncoder, Transformer
from models.shapes.sampling import noise, pictures, sample

# Greatest mean difference allowed: four to six times what was measured with the engine on a CPU. Random weights at 64 pixels:
# at most 0.025 in every type. Trained ones at 256: 0.007 in f16, 0.055 in q4_0, where the CPU rounds activations to 8 bits.
RANDOM = {"f32": 0.1, "f16": 0.1, "q4_0": 0.1}
TRAINED = {"f32": 0.04, "f16": 0.04, "q4_0": 0.3}
PROMPTS = ("a red circle left of a blue square", "3 little moons on a dark blue background", "", "A picture of a green heart.")


def random_weights(size: Size, seed: int) -> tuple[TextEncoder, Transformer, Autoencoder]:
    """Networks whose random weights make every part matter: no gate is closed, every norm has its own weight."""
    torch.manual_seed(seed)
    text, transformer, autoencoder = TextEncoder(size), Transformer(size), Autoencoder()
    for module in (text, transformer):
        for name, value in module.named_parameters():
            if value.ndim == 1:
                torch.nn.init.normal_(value, 1.0 if "norm" in name else 0.0, 0.2)
    for module in autoencoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.1)
    for part in (autoencoder.encoder, autoencoder.decoder):
        for name, value in part.named_parameters():
            if ".conv.4." in name:
                value.data.mul_(0.3)
    last = autoencoder.decoder.layers[-1]
    last.weight.data.mul_(0.1)
    last.bias.data.fill_(0.5)
    return text, transformer, autoencoder


def drawn(engine: list[str], folder: Path, out: Path, prompt: str, seed: int, pixels: int) -> np.ndarray:
    """The picture that the engine draws with the GGUF files in `folder`, also written to `out`. Raises CalledProcessError."""
    out.unlink(missing_ok=True)
    argv = [
        *engine,
        "--diffusion-model",
        f"{folder}/shapes-diffusion.gguf",
        "--llm",
        f"{folder}/shapes-llm.gguf",
        "--tae",
        f"{folder}/shapes-tae.gguf",
    ]
    argv += ["-p", prompt, "-s", str(seed), "--steps", "8", "--cfg-scale", "1", "-W", str(pixels), "-H", str(pixels)]
    subprocess.run([*argv, "-t", "2", "-o", str(out)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with Image.open(out) as picture:
        return np.asarray(picture.convert("RGB"))


def given(folder: Path | None, name: str, size: Size) -> dict[str, bytes]:
    """The GGUF file of each role: those in the folder, or made of its weights or of random ones in the type of that name."""
    if folder and (folder / "shapes-diffusion.gguf").exists():
        return {role: (folder / f"shapes-{role}.gguf").read_bytes() for role in ROLES}
    return files(load(folder) if folder else named(*random_weights(size, 1)), TYPES[name])


def main() -> None:
    """Draws with both and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=shlex.split)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--type", choices=tuple(TYPES), default="f32")
    parser.add_argument("--pixels", type=int, default=64)
    options = parser.parse_args()
    size = Size()
    parts = given(options.weights, options.type, size)
    nets = networks(parts, size)
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for role, data in parts.items():
            (folder / f"shapes-{role}.gguf").write_bytes(data)
        for seed, prompt in enumerate(PROMPTS, 7):
            latent = sample(nets[0], nets[1], [prompt], noise([seed], options.pixels))
            ours = pictures(nets[2], latent)[0].astype(float)
            theirs = drawn(options.engine, folder, folder / "picture.png", prompt, seed, options.pixels).astype(float)
            difference = float(np.abs(ours - theirs).mean())
            worst = max(worst, difference)
            print(f"{difference:6.3f} of 255, deviation of the picture {theirs.std():5.1f}: {prompt!r}")
    bound = (TRAINED if options.weights else RANDOM)[options.type]
    if worst > bound:
        sys.exit(f"the engine and its twin differ by {worst:.3f}, more than {bound}")


if __name__ == "__main__":
    main()
