"""Images that do not suit the GPU, replayed: what sdrun says before anything is started, what the image's guard says, what
happens where both are overridden, and what sdrun makes of that log afterwards.

    python bench/flux_weights.py WEIGHTS --double 2 --single 4 --types q4_0
    python bench/failures.py --flux WEIGHTS [--right sdrun:TAG] [--only NAME,NAME] [--keep FOLDER]

Needs a GPU, Docker with CDI, the images of bench/control_images.py and one that is made for the GPU (`--right`); for another
GPU than a 9.0 the controls mean nothing. The same runs with the right image are the control of the controls: its pictures are
what the others are compared with, and each is compared with the processor's. The runs of one image share a cache of compiled
kernels, which is empty before the first of them: that one is the cold start.

One part that fails is recorded as such and the rest goes on. Everything is written after every image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record  # noqa: E402
from control_images import CONTROLS, REPOSITORY  # noqa: E402

from sdrun.core.index import Index, to_json  # noqa: E402
from sdrun.core.labels import index_image_from_labels  # noqa: E402
from sdrun.core.selftest import difference  # noqa: E402
from sdrun.errors import SdrunError  # noqa: E402
from sdrun.launch.diagnosis import LogReader, diagnose  # noqa: E402
from sdrun.launch.png import pixels_of  # noqa: E402
from sdrun.runtime.protocol import Exit  # noqa: E402

RIGHT = "sdrun:sdcpp-90e87bc-cu124-sm90"
TRAP = b"has no device code compatible with CUDA arch"
SECONDS = 240  # a run that has not ended by then is ended; the longest, with an empty cache, took 44
SHAPES = ROOT / "models" / "shapes" / "weights"
PROCESSOR = "processor"  # the name under which its pictures stand beside the images'
# How the engine is started without sdrun: as closed as by sdrun, with the guard off.
CLOSED = (
    "--rm",
    "--init",
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
)
GUARD_OFF = ("--env", "SDRUN_GUARD=off")
NO_JIT = ("--env", "CUDA_DISABLE_PTX_JIT=1")
FAULTS = (OSError, subprocess.SubprocessError, ValueError, LookupError, AttributeError, SdrunError)


@dataclass(frozen=True)
class Drawing:
    """One picture: `files` are options with the name of a file below the models' folders, `more` other arguments."""

    name: str
    title: str
    model: str
    more: tuple[str, ...]
    compared: bool = True


FLUX = ("--cfg-scale", "1", "--guidance", "3.5", "--sampling-method", "euler", "--steps", "4", "--seed", "42", "-p", "a cat")
SQUARE = ("-W", "512", "-H", "512")
SMALL = ("-W", "64", "-H", "64", "--type", "bf16")
ROUND = ("-p", "a red circle", "--cfg-scale", "1", "--sampling-method", "euler", "--steps", "8", "--seed", "42")
SIZED = ("-W", "256", "-H", "256")
DRAWINGS = (
    Drawing("flux", "FLUX.1's shape, Q4_0, first run", "flux", (*FLUX, *SQUARE)),
    Drawing("flux-again", "the same once more", "flux", (*FLUX, *SQUARE), compared=False),
    Drawing("flux-fa", "with --diffusion-fa", "flux", (*FLUX, *SQUARE, "--diffusion-fa")),
    Drawing("flux-small", "64 x 64, BF16: 16 image tokens", "flux", (*FLUX, *SMALL)),
    Drawing("shapes", "the trained model", "shapes", (*ROUND, *SIZED)),
    Drawing("shapes-fa", "with --diffusion-fa", "shapes", (*ROUND, *SIZED, "--diffusion-fa")),
)


@dataclass
class Bench:
    """What all parts share. `device` is the CDI name that containers are given, empty for none; `gpu` the GPU's name."""

    flux: Path | None
    device: str
    gpu: str
    capability: str
    work: Path
    keep: Path | None = None
    pictures: dict[str, dict[str, Path]] = field(default_factory=dict)

    def sdrun(self, *words: str, **environ: str) -> tuple[int, str, str, float]:
        """Exit code, stdout, stderr and seconds of a command of sdrun's."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path, "SDRUN_STATE_DIR": str(self.work / "state"), "NO_COLOR": "1", **environ}
        begin = time.perf_counter()
        argv = [sys.executable, "-m", "sdrun", *words]
        done = subprocess.run(argv, cwd=self.work, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip(), time.perf_counter() - begin

    def answer(self, *words: str, **environ: str) -> dict[str, Any]:
        """The same with --json: the exit code and what the document says, an error's words where it is one."""
        code, out, err, seconds = self.sdrun(*words, "--json", **environ)
        document = json.loads(out) if out else {}
        error = document.get("error") or document
        kept = {key: error[key] for key in ("id", "message", "remedy") if error.get(key)}
        kept |= {key: document[key] for key in ("status", "code_path", "device") if document.get(key)}
        return {"exit": code, "seconds": round(seconds, 2), **kept, **({} if document else {"text": (out or err)[-600:]})}

    def engine(
        self, image: str, words: Sequence[str], options: Sequence[str], *, on_gpu: bool, log: Path | None = None
    ) -> dict[str, Any]:
        """A run of the image's own program: how it ended, what its log holds, and what sdrun says of it. `on_gpu`: it is to
        compute there."""
        handed = ("--device", self.device) if self.device else ()
        name = f"failures-{os.urandom(6).hex()}"
        named = ["--name", name, "--user", f"{os.getuid()}:{os.getgid()}"]
        argv = ["docker", "run", *CLOSED, *named, *handed, *options, image, *words]
        begin = time.perf_counter()
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as fault:
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
            if log is not None:
                log.write_bytes(fault.stdout or b"")
            raise TimeoutError(f"no end after {SECONDS} seconds") from None
        seconds = time.perf_counter() - begin
        if log is not None:
            log.write_bytes(done.stdout)
        reader = LogReader()
        reader.feed("stdout", done.stdout)
        verdict = diagnose(reader, Exit(done.returncode, False, seconds), on_gpu and (self.gpu or True))
        said = {} if verdict is None else {"id": verdict.id, "message": verdict.message, "remedy": verdict.remedy}
        errors = [
            line for line in done.stdout.decode("utf-8", "replace").splitlines() if "rror" in line and TRAP.decode() not in line
        ]
        return {
            "exit": done.returncode,
            "seconds": round(seconds, 2),
            "no_device_code_lines": done.stdout.count(TRAP),
            "verdict": said or None,
            "last_errors": [line[-200:] for line in errors[-4:]],
            **({"text": done.stdout.decode("utf-8", "replace")[-600:]} if len(done.stdout) < 2000 else {}),
        }


def models(bench: Bench, drawing: Drawing) -> tuple[list[str], list[str]]:
    """Mounts, and the engine's arguments that name the files of the drawing's model."""
    if drawing.model == "shapes":
        files = {"diffusion-model": "shapes-diffusion.gguf", "llm": "shapes-llm.gguf", "tae": "shapes-tae.gguf"}
        folder: Path | None = SHAPES
    else:
        files = {"diffusion-model": "flux-q4_0.gguf", "clip_l": "clip_l.gguf", "vae": "vae.gguf"}
        folder = bench.flux
    if folder is None:
        raise ValueError("no --flux folder was given")
    arguments = [word for option, name in files.items() for word in (f"--{option}", f"/models/{name}")]
    return ["--mount", f"type=bind,source={folder.resolve()},target=/models,readonly"], arguments


def draw(bench: Bench, name: str, image: str, drawing: Drawing, cache: Path, *options: str) -> dict[str, Any]:
    """One forced run of `image`, with its picture."""
    mounts, files = models(bench, drawing)
    out = bench.work / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    mounts += ["--mount", f"type=bind,source={out},target=/out", "--mount", f"type=bind,source={cache},target=/cache"]
    environ = ["--env", "CUDA_CACHE_PATH=/cache", "--env", "CUDA_CACHE_MAXSIZE=4294967296", "--env", "HOME=/tmp"]
    words = [*files, *drawing.more, "-o", f"/out/{drawing.name}.png"]
    log = bench.keep / f"{name}-{drawing.name}.log" if bench.keep else None
    result = bench.engine(image, words, (*mounts, *environ, *GUARD_OFF, *options), on_gpu=name != PROCESSOR, log=log)
    picture = out / f"{drawing.name}.png"
    if picture.exists():
        bench.pictures.setdefault(drawing.name, {})[name] = picture
        values = b"".join(pixels_of(picture.read_bytes()).rows)
        result["picture"] = {"mean": round(statistics.fmean(values), 1), "deviation": round(statistics.pstdev(values), 1)}
        if bench.keep is not None:
            shutil.copy(picture, bench.keep / f"{name}-{drawing.name}.png")
    return result


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `part` gives, or why it gave nothing."""
    try:
        return part()
    except FAULTS as fault:
        return {"failed": f"{type(fault).__name__}: {str(fault)[:400]}"}


def before(bench: Bench, image: str, pretend: str) -> dict[str, dict[str, Any]]:
    """What is said of `image` before its engine starts. `pretend`: a capability by which the resolver lets it pass."""
    index = bench.work / "index.json"

    def resolved() -> dict[str, Any]:
        index.write_text(json.dumps(index_of(image)), encoding="utf-8")
        _, explained, _, _ = bench.sdrun("resolve", "--index", str(index), "--explain")
        return {**bench.answer("resolve", "--index", str(index)), "explained": explained.splitlines()}

    def inspected() -> dict[str, Any]:
        code, out, err, seconds = bench.sdrun("inspect", image, "--for", bench.capability)
        return {"exit": code, "seconds": round(seconds, 2), "text": (out or err)[:600]}

    def launched() -> dict[str, Any]:
        return bench.answer("generate", "-m", "shapes", "-p", "a red circle", "--image", image, "-o", "launched.png")

    def overridden() -> dict[str, Any]:
        words = ("generate", "-m", "shapes", "-p", "a red circle", "--image", image, "-o", "overridden.png")
        return {"pretended": pretend, **bench.answer(*words, SDRUN_COMPUTE_CAPABILITY=pretend)}

    return {
        "inspect": attempt(inspected),
        "resolve": attempt(resolved),
        "generate": attempt(launched),
        "guard": attempt(lambda: bench.engine(image, ("--version",), (), on_gpu=False)),
        **({"overridden": attempt(overridden)} if pretend else {}),
    }


def index_of(image: str) -> dict[str, object]:
    """An index of this image alone, from its labels."""
    form = '{"labels":{{json .Config.Labels}},"id":{{json .Id}},"os":{{json .Os}},"architecture":{{json .Architecture}}}'
    argv = ["docker", "image", "inspect", "--format", form, image]
    facts = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    row = index_image_from_labels(facts["labels"], facts["id"], f"{facts['os']}/{facts['architecture']}")
    return to_json(Index(facts["labels"]["io.sdrun.engine"], (row,)))


def after(bench: Bench, name: str, image: str, cache: Path) -> dict[str, dict[str, Any]]:
    """Every drawing, forced; then the first one with an empty cache and no JIT."""
    cache.mkdir(parents=True)
    runs = {drawing.name: attempt(lambda d=drawing: draw(bench, name, image, d, cache)) for drawing in DRAWINGS}
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    none = Path(tempfile.mkdtemp(dir=cache.parent))
    disabled = Drawing("no-jit", "", "shapes", (*ROUND, *SIZED), compared=False)
    runs["no-jit"] = attempt(lambda: draw(bench, name, image, disabled, none, *NO_JIT))
    return {**runs, "cache": {"bytes": kept}}


def processor(bench: Bench, image: str) -> dict[str, dict[str, Any]]:
    """The drawings by the engine of `image` on the processor; flash attention is the GPU's alone, so without that."""
    cache = bench.work / "cache" / PROCESSOR
    cache.mkdir(parents=True)
    hidden = ("--env", "CUDA_VISIBLE_DEVICES=-1")
    wanted = [drawing for drawing in DRAWINGS if drawing.compared and not drawing.name.endswith("-fa")]
    return {d.name: attempt(lambda d=d: draw(bench, PROCESSOR, image, d, cache, *hidden)) for d in wanted}


def compared(bench: Bench) -> dict[str, dict[str, dict[str, float]]]:
    """Every picture against the right image's and the processor's of the same drawing (without flash attention, there)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for drawing in [one for one in DRAWINGS if one.compared]:
        by_image = bench.pictures.get(drawing.name, {})
        plain = bench.pictures.get(drawing.name.removesuffix("-fa"), {})
        for against, reference in (("right", by_image.get("right")), (PROCESSOR, plain.get(PROCESSOR))):
            for name, picture in by_image.items():
                if reference is not None and picture != reference:
                    found.setdefault(drawing.name, {})[f"{name} - {against}"] = apart(picture, reference)
    return found


def apart(one: Path, other: Path) -> dict[str, float]:
    """The difference of two PNG files, in levels of 255: the mean, the worst square's mean, the largest of one value."""
    rows = pixels_of(one.read_bytes()).rows, pixels_of(other.read_bytes()).rows
    both = difference(*rows)
    largest = max(abs(a - b) for one_row, other_row in zip(*rows, strict=True) for a, b in zip(one_row, other_row, strict=True))
    return {"mean": round(both.mean, 3), "worst_square": round(both.worst, 2), "largest": largest}


def table(images: Mapping[str, Mapping[str, Any]]) -> str:
    """What happened, a line for each image and run."""
    lines = []
    for name, parts in images.items():
        for part, facts in {**parts.get("before", {}), **parts.get("after", {})}.items():
            verdict = facts.get("verdict") or facts
            said = facts.get("failed") or verdict.get("id") or verdict.get("status") or facts.get("text", "")[:60]
            traps, picture = facts.get("no_device_code_lines", ""), "picture" if facts.get("picture") else ""
            cells = (name, part, facts.get("exit", ""), facts.get("seconds", ""), traps, picture, str(said).replace("\n", " "))
            lines.append("{:<10} {:<11} {:>4} {:>7} {:>5} {:<8} {}".format(*cells))
    return "\n".join(
        ["{:<10} {:<11} {:>4} {:>7} {:>5} {:<8} {}".format("image", "part", "exit", "s", "traps", "", "says"), *lines]
    )


def replay(bench: Bench, right: str, names: Sequence[str], write: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """All images, `write` being given what there is after each."""
    figures: dict[str, Any] = {
        "right": right,
        "drawings": {one.name: one.title for one in DRAWINGS},
        "images": {},
        "pictures": {},
    }
    known = {"right": (right, "made for this GPU: the control run", "")}
    known |= {one.name: (f"{REPOSITORY}:{one.name}", one.stands_for, one.pretend) for one in CONTROLS}
    for name in [name for name in known if not names or name in names]:
        image, stands_for, pretend = known[name]
        found = {"image": image, "stands_for": stands_for, "before": before(bench, image, pretend)}
        found["after"] = after(bench, name, image, bench.work / "cache" / name)
        figures["images"][name] = found
        figures["pictures"] = compared(bench)
        write(figures)
    if not names or PROCESSOR in names:
        figures["images"][PROCESSOR] = {"image": right, "stands_for": "the processor", "after": processor(bench, right)}
        figures["pictures"] = compared(bench)
        write(figures)
    return figures


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flux", type=Path, metavar="FOLDER", help="what bench/flux_weights.py wrote")
    parser.add_argument("--right", default=RIGHT, metavar="IMAGE", help="an image made for this GPU")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help=f"of right, {', '.join(c.name for c in CONTROLS)}, {PROCESSOR}"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep every log and picture there")
    parser.add_argument("--device", default="nvidia.com/gpu=all", help="what containers are given, by CDI; empty: nothing")
    options = parser.parse_args()
    facts = record.gpu_facts() if options.device else {"device": "", "compute_capability": "9.0"}
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="failures-") as name:
        (Path(name) / "state").mkdir()
        bench = Bench(
            options.flux, options.device, str(facts["device"]), str(facts["compute_capability"]), Path(name), options.keep
        )
        gpu = facts if options.device else None
        file = record.out_folder() / f"failures_{record.slug(bench.gpu) if bench.gpu else 'no_gpu'}.json"

        def write(figures: Mapping[str, Any]) -> None:
            file.write_text(json.dumps(record.document("failures", figures, None, gpu), indent=1) + "\n", encoding="utf-8")

        figures = replay(bench, options.right, [word for word in options.only.split(",") if word], write)
    print(table(figures["images"]))
    for drawing, pairs in figures["pictures"].items():
        for pair, far in pairs.items():
            figs = f"mean {far['mean']:.3f}, worst square {far['worst_square']:.2f}, largest {far['largest']:.0f}"
            print(f"{drawing:<11} {pair:<22} {figs}")


if __name__ == "__main__":
    main()
