"""The self-test's pictures and bounds: records the pictures, and measures how far sound engines are from them.

    python bench/selftest.py record              draws every probe with the cpu image into images/selftest/
    python bench/selftest.py measure             the same engine again, and its kernels against each other
    python bench/selftest.py plan                the probes as plain commands into bench/selftest_plan.json
    python bench/selftest.py bare ENGINE [--device NAME] [--record NAME]
                                                 draws the plan's probes with the program ENGINE, twice each, and prints the
                                                 differences: for a machine without a container runtime, with Python 3.11 alone

A bound is twice the largest difference of a sound engine, and no less than what rounding in the last step can do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record as results  # noqa: E402

from sdrun.core.selftest import Difference, difference  # noqa: E402
from sdrun.launch.png import pixels_of  # noqa: E402

PICTURES = ROOT / "images" / "selftest"
CATALOGUE = ROOT / "images" / "selftest.yaml"
PLAN = ROOT / "bench" / "selftest_plan.json"
MODELS = ROOT / "models" / "shapes" / "weights"
TARGET = "cpu"


def apart(one: Path, other: Path) -> Difference:
    """The difference of two PNG files."""
    return difference(pixels_of(one.read_bytes()).rows, pixels_of(other.read_bytes()).rows)


def rounded(found: Difference) -> dict[str, float]:
    """For a document."""
    return {"mean": round(found.mean, 4), "worst": round(found.worst, 3)}


def sdrun(folder: Path, *words: str) -> dict[str, object]:
    """`sdrun selftest --json` on the CPU; its pictures in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "sdrun", "selftest", "--image", TARGET, "--gpu", "none", "--allow-cpu", "--json"]
    done = subprocess.run([*argv, "--keep", str(folder), *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 9):
        sys.exit(f"sdrun selftest ended with {done.returncode}")
    document: dict[str, object] = json.loads(done.stdout)
    return document


def record_pictures() -> None:
    """Draws anew, and writes down with what."""
    from PIL import Image

    PICTURES.mkdir(exist_ok=True)
    start_picture().save(PICTURES / "start.png", optimize=True)
    for name in named_pictures():
        if not (PICTURES / name).exists():  # anything of the right size lets the probes run
            shutil.copy(PICTURES / "start.png", PICTURES / name)
    with tempfile.TemporaryDirectory() as name:
        document = sdrun(Path(name))
        for path in Path(name).glob("*.png"):
            with Image.open(path) as picture:
                picture.convert("RGB").save(PICTURES / path.name, optimize=True)
    provenance = {
        "engine": engine_of(str(document["image"])),
        "image": str(document["image"]),
        "processor": results._processor(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    text = CATALOGUE.read_text(encoding="utf-8")
    for key, value in provenance.items():
        text = re.sub(rf'(?m)^  {key}: ".*"$', f"  {key}: {json.dumps(value)}", text, count=1)
    CATALOGUE.write_text(text, encoding="utf-8")
    print(f"{len(list(PICTURES.glob('*.png')))} pictures, {sum(path.stat().st_size for path in PICTURES.glob('*.png'))} bytes")


def start_picture() -> object:
    """The picture that the autoencoder's probes start from: drawn by the world's own renderer, every colour and shape in it."""
    from PIL import Image

    from models.shapes.scene import COLORS, SHAPES, Figure, Scene, render
    from sdrun.catalog.selftest import selftest

    places = [(x, y) for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8)]
    colors = [color for color in COLORS if color not in ("white", "gray", "black")]
    figures = [Figure(*look, *place, 0.13) for look, place in zip(zip(SHAPES, colors, strict=True), places, strict=True)]
    return Image.fromarray(render(Scene(tuple(figures), "white"), selftest().size))


def named_pictures() -> list[str]:
    """Every recorded picture's file name."""
    from sdrun.catalog.selftest import selftest

    return [probe.picture for probe in selftest().probes]


def engine_of(image: str) -> str:
    """The engine that an image's label names."""
    argv = ["docker", "image", "inspect", "--format", '{{index .Config.Labels "io.sdrun.engine"}}', image]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def measure() -> None:
    """The recorded pictures against the same engine again, and the kernels against each other."""
    with tempfile.TemporaryDirectory() as name:
        document = sdrun(Path(name))
        probes = {probe["name"]: probe for probe in document["probes"]}  # type: ignore[attr-defined, index]
        against = {
            f"{one} against {other}": rounded(apart(PICTURES / f"{one}.png", PICTURES / f"{other}.png"))
            for one, other in (
                ("q4_0", "f16"),
                ("f16", "f32"),
                ("q8_0", "f32"),
                ("q4_k", "f32"),
                ("flash-f32", "f32"),
                ("flash-f16", "f16"),
                ("autoencoder-direct", "autoencoder"),
            )
        }
    figures = {
        "model": document["model"],
        "image": document["image"],
        "seconds": document["seconds"],
        "same_engine_again": {
            key: {part: probe[part] for part in ("mean", "worst", "seconds")} for key, probe in probes.items()
        },
        "kernels_against_each_other": against,
    }
    results.write("kernels_compared", figures)


def plan(file: Path = PLAN) -> None:
    """Each probe's engine arguments, as they are inside the container, and the model's files by role."""
    from sdrun.catalog.models import models
    from sdrun.catalog.selftest import selftest
    from sdrun.core.model import ModelFiles
    from sdrun.launch.engine_args import inside
    from sdrun.launch.request import completed
    from sdrun.launch.selftest.run import request_of

    suite = selftest()
    model = models()[suite.model]
    files = {role: Path("/models") / role / part.name for role, part in model.files.items()}
    probes = []
    for probe in suite.probes:
        request = completed(request_of(suite, probe, Path("/out"), PICTURES), model.defaults)
        words = inside(request, ModelFiles(model.name, files, model.defaults), Path("/out"), f"{probe.name}.png").arguments
        probes.append({"name": probe.name, "picture": probe.picture, "init": probe.init, "arguments": list(words)})
    document = {"model": suite.model, "files": {role: path.name for role, path in files.items()}, "probes": probes}
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def bare(engine: Path, device: str, name: str | None) -> None:
    """Draws the plan's probes with a program on this machine, twice, and prints how far they are from the recorded ones."""
    document = json.loads(PLAN.read_text(encoding="utf-8"))
    drawn: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for probe in document["probes"]:
            words = [_here(word, document["files"], probe, Path(folder)) for word in probe["arguments"]]
            seconds, outputs = [], []
            for turn in ("first", "again"):
                begin = time.monotonic()
                done = subprocess.run([str(engine), *words], capture_output=True, check=False)
                seconds.append(time.monotonic() - begin)
                picture = Path(folder) / f"{probe['name']}.png"
                if done.returncode or not picture.exists():
                    print((done.stdout + done.stderr).decode(errors="replace")[-1500:], file=sys.stderr)
                    sys.exit(f"{probe['name']}: the engine ended with {done.returncode}")
                log = (done.stdout + done.stderr).decode(errors="replace")
                outputs.append(picture.rename(picture.with_suffix(f".{turn}.png")))
            found = apart(outputs[0], PICTURES / probe["picture"])
            drawn[probe["name"]] = {
                **rounded(found),
                "twice": rounded(apart(*outputs)),
                "seconds": round(min(seconds), 3),
                "backend": "cuda" if "ggml_cuda_init: found" in log else "cpu",
            }
            print(f"{probe['name']:<20} {json.dumps(drawn[probe['name']])}", flush=True)
    if name is not None:
        results.write(f"selftest_{name}", {"model": document["model"], "engine": engine.name, "probes": drawn}, device or None)


def _here(word: str, files: Mapping[str, str], probe: Mapping[str, str], out: Path) -> str:
    """A path of the container as it is on this machine."""
    for role, name in files.items():
        if word == f"/models/{role}/{name}":
            return str(MODELS / name)
    if probe["init"] and word == f"/inputs/init/{probe['init']}":
        return str(PICTURES / probe["init"])
    return str(out / word.removeprefix("/out/")) if word.startswith("/out/") else word


def main(arguments: Sequence[str]) -> None:
    """See the module's own words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("record")
    verbs.add_parser("measure")
    verbs.add_parser("plan").add_argument("file", type=Path, nargs="?", default=PLAN)
    there = verbs.add_parser("bare")
    there.add_argument("engine", type=Path)
    there.add_argument("--device", default=os.environ.get("SELFTEST_DEVICE", ""))
    there.add_argument("--record")
    options = parser.parse_args(arguments)
    if options.verb == "record":
        record_pictures()
    elif options.verb == "measure":
        measure()
    elif options.verb == "plan":
        plan(options.file)
    else:
        bare(options.engine.resolve(), options.device, options.record)


if __name__ == "__main__":
    main(sys.argv[1:])
