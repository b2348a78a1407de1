"""Images that do not suit the GPU, replayed: what sdrun says before anything is started, what the image's guard says, what
happens where both are overridden, and what sdrun makes of that log afterwards.

    python bench/flux_weights.py WEIGHTS --double 2 --single 4 --types q4_0
    python bench/failures.py --flux WEIGHTS [--right IMAGE] [--only NAME,NAME] [--keep FOLDER]

Needs a GPU of 9.0, Docker with CDI, the images of bench/control_images.py and one that is made for the GPU (`--right`). The
same runs with that one are the control of the controls: the others' pictures are held against its pictures, and all against the
processor's. The runs of one image share a cache of compiled kernels, which is empty before the first of them: that one is the
cold start. What is drawn, and what ought to come of it, stands in bench/failures.yaml.

A part that fails is recorded as such and the rest goes on. Everything is written after every image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record  # noqa: E402
from control_images import CONTROLS, FURTHER, REPOSITORY  # noqa: E402

from sdrun.core.index import Index, to_json  # noqa: E402
from sdrun.core.labels import ENGINE, index_image_from_labels  # noqa: E402
from sdrun.core.selftest import SQUARE  # noqa: E402
from sdrun.errors import SdrunError  # noqa: E402
from sdrun.launch.diagnosis import LogReader, diagnose  # noqa: E402
from sdrun.runtime.protocol import Exit  # noqa: E402

RIGHT = "sdrun:sdcpp-90e87bc-pruned-cu124-sm90"  # what the control images share their layers with
TRAP = "has no device code compatible with CUDA arch"
SECONDS = 240  # a run that has not ended by then is ended; the longest, with an empty cache, took 44
PROCESSOR = "processor"  # the name under which its pictures stand beside the images'
MODELS = {
    "shapes": {"diffusion-model": "shapes-diffusion.gguf", "llm": "shapes-llm.gguf", "tae": "shapes-tae.gguf"},
    "flux": {"diffusion-model": "flux-q4_0.gguf", "clip_l": "clip_l.gguf", "vae": "vae.gguf"},
}
# How the engine is started without sdrun: as closed as by sdrun, the guard off, with a cache of kernels of its own.
CLOSED = (
    "--rm",
    "--init",
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
)
FORCED = ("--env", "SDRUN_GUARD=off", "--env", "HOME=/tmp")
CACHED = ("--env", "CUDA_CACHE_PATH=/cache", "--env", "CUDA_CACHE_MAXSIZE=4294967296")
FAULTS = (OSError, subprocess.SubprocessError, ValueError, LookupError, AttributeError, SdrunError)

Facts = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """One picture, as bench/failures.yaml has it."""

    name: str
    title: str
    model: str
    arguments: tuple[str, ...]
    compared: bool


PLAN = yaml.safe_load((Path(__file__).with_suffix(".yaml")).read_text(encoding="utf-8"))
DRAWINGS = {
    name: Drawing(name, row["title"], row["model"], tuple(row["arguments"]), row["compared"])
    for name, row in PLAN["drawings"].items()
}


@dataclass
class Bench:
    """What all parts share. `folders`: of the models' files; `device`: the CDI name that containers are given, empty for none;
    `gpu`: the GPU's name; `pictures` by drawing and image."""

    folders: Mapping[str, Path]
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

    def answer(self, *words: str, **environ: str) -> Facts:
        """The same with --json: the exit code and what the document says, an error's words where it is one."""
        code, out, err, seconds = self.sdrun(*words, "--json", **environ)
        document = json.loads(out) if out else {}
        error = document.get("error") or document
        kept = {key: error[key] for key in ("id", "message", "remedy") if error.get(key)}
        kept |= {key: document[key] for key in ("status", "code_path", "device") if document.get(key)}
        return {"exit": code, "seconds": round(seconds, 2), **kept, **({} if document else {"text": (out or err)[-600:]})}

    def engine(
        self, image: str, words: Sequence[str], options: Sequence[str], *, on_gpu: bool, log: Path | None = None
    ) -> Facts:
        """A run of the image's own program: how it ended, what its log holds, and what sdrun says of it. `on_gpu`: it is to
        compute there."""
        handed = ("--device", self.device) if self.device else ()
        name = f"failures-{os.urandom(6).hex()}"
        named = ("--name", name, "--user", f"{os.getuid()}:{os.getgid()}")
        argv = ["docker", "run", *CLOSED, *named, *handed, *options, image, *words]
        begin = time.perf_counter()
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
            code, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as fault:
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
            code, output = 137, fault.stdout or b""
        seconds = time.perf_counter() - begin
        if log is not None:
            log.write_bytes(output)
        return {"exit": code, "seconds": round(seconds, 2), **self.read(output, code, on_gpu)}

    def read(self, output: bytes, code: int, on_gpu: bool) -> Facts:
        """What is in a log, and what sdrun says of it."""
        reader = LogReader()
        reader.feed("stdout", output)
        verdict = diagnose(reader, Exit(code, False, 0.0), on_gpu and (self.gpu or True))
        said = verdict and {"id": verdict.id, "message": verdict.message, "remedy": verdict.remedy}
        text = output.decode("utf-8", "replace")
        lines = [line[-200:] for line in text.splitlines() if "rror" in line and TRAP not in line]
        short = {"text": text[-600:]} if len(text) < 2000 else {}
        return {"no_device_code_lines": text.count(TRAP), "verdict": said, "last_errors": lines[-4:], **short}


def draw(bench: Bench, name: str, image: str, drawing: Drawing, cache: Path, *options: str) -> Facts:
    """One forced run of `image`, with its picture."""
    out = bench.work / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    places = {bench.folders[drawing.model].resolve(): "/models,readonly", out: "/out", cache: "/cache"}
    mounts = [word for source, target in places.items() for word in ("--mount", f"type=bind,source={source},target={target}")]
    files = [word for option, file in MODELS[drawing.model].items() for word in (f"--{option}", f"/models/{file}")]
    words = [*files, *drawing.arguments, "-o", f"/out/{drawing.name}.png"]
    log = bench.keep / f"{name}-{drawing.name}.log" if bench.keep else None
    given = (*mounts, *FORCED, *CACHED, *options)
    result = bench.engine(image, words, given, on_gpu=name != PROCESSOR, log=log)
    picture = out / f"{drawing.name}.png"
    if picture.exists():
        bench.pictures.setdefault(drawing.name, {})[name] = picture
        values = pixels(picture)
        result["picture"] = {"mean": round(float(values.mean()), 1), "deviation": round(float(values.std()), 1)}
        if bench.keep is not None:
            shutil.copy(picture, bench.keep / f"{name}-{drawing.name}.png")
    return result


def attempt(part: Callable[[], Facts]) -> Facts:
    """What `part` gives, or why it gave nothing."""
    try:
        return part()
    except FAULTS as fault:
        return {"failed": f"{type(fault).__name__}: {str(fault)[:400]}"}


def before(bench: Bench, image: str, pretend: str) -> dict[str, Facts]:
    """What is said of `image` before its engine starts. `pretend`: a capability by which the resolver lets it pass."""
    index = bench.work / "index.json"
    asked = ("resolve", "--index", str(index))
    shape = ("generate", "-m", "shapes", "-p", "a red circle", "--image", image, "-o")

    def inspected() -> Facts:
        code, out, err, seconds = bench.sdrun("inspect", image, "--for", bench.capability)
        return {"exit": code, "seconds": round(seconds, 2), "text": (out or err)[:600]}

    def resolved() -> Facts:
        index.write_text(json.dumps(index_of(image)), encoding="utf-8")
        return {**bench.answer(*asked), "explained": bench.sdrun(*asked, "--explain")[1].splitlines()}

    def overridden() -> Facts:
        return {"pretended": pretend, **bench.answer(*shape, "overridden.png", SDRUN_COMPUTE_CAPABILITY=pretend)}

    return {
        "inspect": attempt(inspected),
        "resolve": attempt(resolved),
        "no-jit": attempt(lambda: bench.answer(*asked, "--no-jit")),
        "generate": attempt(lambda: bench.answer(*shape, "launched.png")),
        "guard": attempt(lambda: bench.engine(image, ("--version",), (), on_gpu=False)),
        **({"overridden": attempt(overridden)} if pretend else {}),
    }


def is_here(image: str) -> bool:
    """Whether Docker has it."""
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def index_of(image: str) -> dict[str, object]:
    """An index of this image alone, from its labels."""
    form = '{"labels":{{json .Config.Labels}},"id":{{json .Id}},"os":{{json .Os}},"architecture":{{json .Architecture}}}'
    argv = ["docker", "image", "inspect", "--format", form, image]
    facts = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    row = index_image_from_labels(facts["labels"], facts["id"], f"{facts['os']}/{facts['architecture']}")
    return to_json(Index(facts["labels"][ENGINE], (row,)))


def after(bench: Bench, name: str, image: str) -> dict[str, Facts]:
    """Every drawing, forced; the last with another, empty cache and no JIT."""
    folder = bench.work / "cache" / name
    shared, empty = folder / "shared", folder / "empty"
    shared.mkdir(parents=True)
    empty.mkdir()
    runs = {}
    for drawing in DRAWINGS.values():
        off = ("--env", "CUDA_DISABLE_PTX_JIT=1") if drawing.name == "disabled" else ()
        runs[drawing.name] = attempt(partial(draw, bench, name, image, drawing, empty if off else shared, *off))
    runs["cache"] = {"bytes": sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())}
    return runs


def processor(bench: Bench, image: str) -> dict[str, Facts]:
    """The drawings by the engine of `image` on the processor; flash attention is the GPU's alone, so without that."""
    cache = bench.work / "cache" / PROCESSOR
    cache.mkdir(parents=True)
    hidden = ("--env", "CUDA_VISIBLE_DEVICES=-1")
    wanted = [drawing for drawing in DRAWINGS.values() if drawing.compared and not drawing.name.endswith("-fa")]
    return {one.name: attempt(partial(draw, bench, PROCESSOR, image, one, cache, *hidden)) for one in wanted}


def compared(bench: Bench) -> dict[str, dict[str, Facts]]:
    """Every picture against the right image's and the processor's of the same drawing (without flash attention, there)."""
    found: dict[str, dict[str, Facts]] = {}
    for drawing in [one for one in DRAWINGS.values() if one.compared]:
        by_image = bench.pictures.get(drawing.name, {})
        plain = bench.pictures.get(drawing.name.removesuffix("-fa"), {})
        for against, reference in (("right", by_image.get("right")), (PROCESSOR, plain.get(PROCESSOR))):
            for name, picture in by_image.items():
                if reference is not None and picture != reference:
                    found.setdefault(drawing.name, {})[f"{name} - {against}"] = apart(picture, reference)
    return found


def pixels(path: Path) -> npt.NDArray[np.int16]:
    """Rows, columns, colours."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def apart(one: Path, other: Path) -> Facts:
    """The difference of two PNG files, in levels of 255: the mean, the worst square's mean, the largest of one value."""
    gaps = np.abs(pixels(one) - pixels(other))
    rows, columns, _ = gaps.shape
    squares = gaps.reshape(rows // SQUARE, SQUARE, columns // SQUARE, SQUARE, 3).mean(axis=(1, 3, 4))
    return {"mean": round(float(gaps.mean()), 3), "worst_square": round(float(squares.max()), 2), "largest": int(gaps.max())}


def parts_of(image: Mapping[str, Any]) -> dict[str, Facts]:
    """Both halves of what was found of an image."""
    return {**image.get("before", {}), **image.get("after", {})}


def table(images: Mapping[str, Mapping[str, Any]]) -> str:
    """What happened, a line for each image and part."""
    form = "{:<10} {:<11} {:>4} {:>7} {:>5} {:<8} {}"
    lines = [form.format("image", "part", "exit", "s", "traps", "", "says")]
    for name, found in images.items():
        for part, facts in parts_of(found).items():
            verdict = facts.get("verdict") or facts
            said = facts.get("failed") or verdict.get("id") or verdict.get("status") or facts.get("text", "")[:80]
            traps, picture = facts.get("no_device_code_lines", ""), "picture" if facts.get("picture") else ""
            cells = (facts.get("exit", ""), facts.get("seconds", ""), traps, picture, str(said).replace("\n", " "))
            lines.append(form.format(name, part, *cells))
    return "\n".join(lines)


def surprises(images: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where it came otherwise than expected."""
    found = []
    for name, image in images.items():
        facts = parts_of(image)
        found += [f"{name}: {image['failed']}"] if "failed" in image else []
        for part, (code, *ids) in (PLAN["expected"].get(name, {}) if facts else {}).items():
            got = facts.get(part, {})
            said = (got.get("verdict") or got).get("id", "")
            wrong = got.get("exit") in (0, None) if code == "failed" else got.get("exit") != code
            if wrong or (ids and said != ids[0]):
                wanted = " ".join(map(str, (code, *ids)))
                found.append(f"{name}, {part}: expected {wanted}, came {got.get('exit')} {said}".rstrip())
    return found


def replay(bench: Bench, right: str, names: Sequence[str], write: Callable[[Facts], None]) -> Facts:
    """All images, `write` being given what there is after each."""
    titles = {one.name: one.title for one in DRAWINGS.values()}
    figures: Facts = {"right": right, "drawings": titles, "surprises": [], "pictures": {}, "images": {}}
    known = {"right": (right, "made for this GPU", "")}
    known |= {one.name: (f"{REPOSITORY}:{one.name}", one.stands_for, one.pretend) for one in (*CONTROLS, *FURTHER)}
    known[PROCESSOR] = (right, "the same engine on the processor", "")
    usual = ("right", *(one.name for one in CONTROLS), PROCESSOR)
    for name in [name for name in known if name in (names or usual)]:
        image, stands_for, pretend = known[name]
        found: Facts = {"image": image, "stands_for": stands_for}
        figures["images"][name] = found
        if not is_here(image):
            found["failed"] = "there is no such image here"
        elif name == PROCESSOR:
            found["after"] = processor(bench, image)
        else:
            found |= {"before": before(bench, image, pretend), "after": after(bench, name, image)}
        figures |= {"pictures": compared(bench), "surprises": surprises(figures["images"])}
        write(figures)
    return figures


def main() -> None:
    """See above."""
    names = ["right", *(one.name for one in (*CONTROLS, *FURTHER)), PROCESSOR]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flux", type=Path, required=True, metavar="FOLDER", help="what bench/flux_weights.py wrote")
    parser.add_argument("--right", default=RIGHT, metavar="IMAGE", help="an image made for this GPU")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(names)}, with commas")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep every log and picture there")
    parser.add_argument("--device", default="nvidia.com/gpu=all", help="what containers are given, by CDI; empty: nothing")
    options = parser.parse_args()
    wanted = [word for word in options.only.split(",") if word]
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"no image {', '.join(unknown)}; there are {', '.join(names)}")
    facts = record.gpu_facts() if options.device else {"device": "none", "compute_capability": "9.0"}
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    file = record.out_folder() / f"failures_{record.slug(str(facts['device']))}.json"

    def write(figures: Facts) -> None:
        file.write_text(json.dumps(record.document("failures", figures, None, facts), indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="failures-") as name:
        folders = {"shapes": ROOT / "models" / "shapes" / "weights", "flux": options.flux}
        gpu = str(facts["device"]) if options.device else ""
        bench = Bench(folders, options.device, gpu, str(facts["compute_capability"]), Path(name), options.keep)
        (bench.work / "state").mkdir()
        figures = replay(bench, options.right, wanted, write)
    print(table(figures["images"]))
    for drawing, pairs in figures["pictures"].items():
        for pair, far in pairs.items():
            numbers = f"mean {far['mean']:.3f}, worst square {far['worst_square']:.2f}, largest {far['largest']}"
            print(f"{drawing:<11} {pair:<22} {numbers}")
    print("\n".join(figures["surprises"] or ["everything came as expected"]))


if __name__ == "__main__":
    main()
