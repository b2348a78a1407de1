"""Trains the model shapes from nothing to weights and figures, within a time that is given.

    python -m models.shapes.train --out out/shapes --seconds 1500

Needs one GPU (made for an H100; on a CPU `--small` rehearses all stages). Random numbers are seeded, but the number of steps
follows the clock, so two runs are alike and not equal. A training can be cut in two: `--until 0.48` ends this call at that
share of the whole, and the next call goes on from the state in `--work`, or, where that is lost, from weights in `--resume`.

`--out` gets weights-*.npz (f16, at most 15 MB each), log.txt, and at the end measure.json and contact sheets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.shapes import fit_autoencoder
from models.shapes.autoencoder import Autoencoder
from models.shapes.export import load, named
from models.shapes.fit_transformer import Batches, Networks, Plan, Trainee, compiled, fit, fresh
from models.shapes.measure import SHEET, contact, draw, measure, prompts, show, table, verdicts
from models.shapes.network import Size
from models.shapes.scenes import Scenes, make

SEED = 20261123
FILE_BYTES = 15_000_000
SMALL = Size(width=128, doubles=1, singles=2, text=32, text_layers=1, text_mlp=64)


class Run:
    """One call: its clock, its log and its folders."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.begin, self.options = time.monotonic(), options
        self.out, self.work = options.out, options.work
        for folder in (self.out, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.size = SMALL if options.small else Size()

    def log(self, text: str) -> None:
        """Prints and records."""
        line = f"[{time.monotonic() - self.begin:6.1f}] {text}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as stream:
            stream.write(line + "\n")

    def left(self, reserve: float) -> float:
        """Seconds until this call must end, less a reserve."""
        return float(self.options.seconds - (time.monotonic() - self.begin) - reserve)


def save_weights(run: Run, trainee: Trainee, autoencoder: Autoencoder) -> None:
    """The averaged weights in f16, in files of limited size."""
    networks = Networks(run.size)  # a state_dict shares its tensors with the parameters
    for value, average in zip(networks.parameters(), trainee.average, strict=True):
        value.data = average.cpu()
    flat = {
        f"{role}/{name}": value.astype(np.float16)
        for role, part in named(networks.llm, networks.diffusion, autoencoder).items()
        for name, value in part.items()
    }
    bins: list[dict[str, Any]] = []
    for name, value in sorted(flat.items(), key=lambda item: -item[1].nbytes):
        for part in bins:
            if sum(other.nbytes for other in part.values()) + value.nbytes <= FILE_BYTES:
                part[name] = value
                break
        else:
            bins.append({name: value})
    bins[-1]["training/progress"] = np.float32(trainee.progress)
    for index, part in enumerate(bins):
        np.savez(run.out / f"weights-{index}.npz", **part)


def save_state(run: Run, trainee: Trainee) -> None:
    """All that the next call needs, whole or not at all."""
    torch.save(trainee.state(), run.work / "state.new")
    (run.work / "state.new").replace(run.work / "state.pt")


def saved_weights(run: Run) -> dict[str, Any] | None:
    """What an earlier call left in `--resume`: the weights by role, and how far it came."""
    if run.options.resume is None or not (run.options.resume / "weights-0.npz").exists():
        return None
    return load(run.options.resume)


def autoencoder_and_latents(run: Run, scenes: Scenes, device: torch.device) -> tuple[Autoencoder, torch.Tensor]:
    """Trained, or taken from an earlier call."""
    options, kept = run.options, run.work / "latents.pt"
    weights = run.work / "autoencoder.pt"
    autoencoder = Autoencoder().to(device).eval()
    earlier = saved_weights(run)
    if weights.exists():
        autoencoder.load_state_dict(torch.load(weights, map_location=device))
        run.log("autoencoder from the earlier call")
    elif earlier:
        parts = {k: torch.from_numpy(v.copy()) for k, v in earlier["tae"].items() if not k.startswith("encoder.layers.1.")}
        autoencoder.load_state_dict(parts)
        run.log("autoencoder from the weights of an earlier call")
    else:
        share, batch = options.autoencoder_seconds, 8 if options.small else 64
        autoencoder = fit_autoencoder.fit(scenes, device, share, options.pixels, batch, run.log, SEED)
        torch.save(autoencoder.state_dict(), weights)
    if kept.exists():
        latents = torch.load(kept, map_location=device)
        run.log(f"{len(latents)} latents from the earlier call")
        return autoencoder, latents
    autoencoder = autoencoder.to(memory_format=torch.channels_last)
    latents = fit_autoencoder.latents(autoencoder, scenes, device, options.pixels, 16 if options.small else 256)
    spread = latents[:2000].float()
    run.log(
        f"{len(latents)} latents: mean {spread.mean():.3f}, deviation {spread.std():.3f}, greatest {spread.abs().max():.2f}"
    )
    if options.until < 1:
        free, needed = shutil.disk_usage(run.work).free, latents.numel() * 2
        if free > 1.5 * needed:
            torch.save(latents, kept)
        run.log(f"latents {'kept' if kept.exists() else 'not kept'}: {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
    return autoencoder, latents


def looker(run: Run, pool: Pool, trainee: Trainee, autoencoder: Autoencoder, device: torch.device) -> Callable[[bool], None]:
    """A function that draws with the averaged weights, and the text as long as training sees it, judges and logs."""
    chosen = prompts(20 if run.options.small else 100, seed=7)
    kinds, said, specs = ([row[part] for row in chosen] for part in range(3))
    networks = Networks(run.size).to(device, trainee.copies[0].dtype).eval()
    values = list(networks.parameters())

    def look(sheet: bool) -> None:
        begin = time.monotonic()
        rounding = trainee.progress >= trainee.plan.quantize
        trainee.publish(trainee.average, values, rounding)
        seeds = list(range(100, 100 + len(said)))
        drawn = draw(networks.llm, networks.diffusion, autoencoder, said, seeds, run.options.pixels, 100, trainee.text)
        rows = table(kinds, verdicts(pool, specs, drawn))
        parts = {part: round(100 * value) for part, value in rows["all"].items() if part != "pictures"}
        each = ", ".join(f"{kind} {100 * row['ok']:.0f}" for kind, row in rows.items())
        at = f"step {trainee.step}, {trainee.text} tokens of text"
        run.log(f"LOOK {at}: {each} % right; parts {parts}; {time.monotonic() - begin:.1f} s")
        if sheet:
            drawn = draw(
                networks.llm, networks.diffusion, autoencoder, SHEET, range(1, 25), run.options.pixels, 100, trainee.text
            )
            contact(drawn, 6, run.out / "sheet-training.png")
            run.log(f"contact sheet after step {trainee.step}\n{show(rows)}")

    return look


def train(run: Run, pool: Pool, scenes: Scenes, device: torch.device) -> None:
    """The transformer: from the state of an earlier call, from its weights, or from nothing."""
    options = run.options
    plan = Plan(batch=options.batch, rate=options.rate)
    autoencoder, latents = autoencoder_and_latents(run, scenes, device)
    networks = fresh(run.size, SEED)
    trainee = Trainee(networks, device, plan)
    earlier = saved_weights(run)
    if (run.work / "state.pt").exists():
        trainee.restore(torch.load(run.work / "state.pt", map_location=device))
        run.log(f"goes on from step {trainee.step}, progress {trainee.progress:.3f}")
    elif earlier:
        parts = {f"{role}.{name}": value for role in ("llm", "diffusion") for name, value in earlier[role].items()}
        values = [torch.from_numpy(parts[name].copy()) for name in trainee.names]
        trainee.restore({"step": 0, "progress": float(earlier["training"]["progress"]), "masters": values, "average": values})
        run.log(f"goes on from the weights of an earlier call, progress {trainee.progress:.3f}")
    if not options.no_compile:
        compiled(trainee.networks, run.log)
    torch.manual_seed(SEED + trainee.step)
    batches, look = Batches(latents, scenes), looker(run, pool, trainee, autoencoder, device)
    save_state(run, trainee)
    reserve = options.reserve if options.until >= 1 else options.reserve / 3
    while trainee.progress < options.until:
        try:
            watched(run, trainee, autoencoder, look, fit(trainee, batches, run.left(reserve), options.until, run.log))
        except FloatingPointError as error:
            trainee.plan = replace(trainee.plan, rate=trainee.plan.rate / 2)
            run.log(f"{error}: back to the last state, rate {trainee.plan.rate}")
            trainee.restore(torch.load(run.work / "state.pt", map_location=device))
    save_weights(run, trainee, autoencoder)
    save_state(run, trainee)
    run.log(f"saved at step {trainee.step}, progress {trainee.progress:.3f}")
    look(options.until < 1)


def watched(
    run: Run, trainee: Trainee, autoencoder: Autoencoder, look: Callable[[bool], None], steps: Iterator[tuple[int, float]]
) -> None:
    """Goes through the steps of a training; saves and looks at pictures from time to time."""
    saved, looked, kept = 0.0, 0.0, 0.0
    for _, elapsed in steps:
        if elapsed - saved > 60:
            save_state(run, trainee)
            saved = elapsed
        if elapsed - looked > run.options.look:
            look(False)
            looked = elapsed
        if elapsed - kept > 150:
            save_weights(run, trainee, autoencoder)
            kept = elapsed


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/shapes"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/shapes-work"), help="state for a next call on this machine")
    parser.add_argument("--resume", type=Path, help="weights of an earlier call")
    parser.add_argument("--seconds", type=float, default=1500, help="this call ends after so long")
    parser.add_argument("--until", type=float, default=1.0, help="this call ends at this share of the training")
    parser.add_argument("--autoencoder-seconds", type=float, default=130)
    parser.add_argument("--reserve", type=float, default=75, help="seconds kept for measuring at the end")
    parser.add_argument("--scenes", type=int, default=320_000)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--look", type=float, default=75, help="seconds between looks at pictures")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--small", action="store_true", help="small networks, to rehearse on a CPU")
    return parser.parse_args()


def main() -> None:
    """All stages."""
    options = arguments()
    run = Run(options)
    with get_context("fork").Pool(os.cpu_count()) as pool:  # before the GPU is touched, which does not survive a fork
        scenes = make(pool, options.scenes, SEED)
        run.log(f"{len(scenes.figures)} scenes, prompts of at most {scenes.lengths.max()} tokens")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.benchmark = True
        run.log(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU'}")
        train(run, pool, scenes, device)
        if options.until >= 1:
            number = 12 if options.small else 200
            answer = measure(pool, run.out, run.out, ("f16", "q4_0"), number, 3, device, options.pixels, run.size)
            run.log(
                "measured "
                + json.dumps({name: {kind: round(row["ok"], 3) for kind, row in rows.items()} for name, rows in answer.items()})
            )


if __name__ == "__main__":
    main()
