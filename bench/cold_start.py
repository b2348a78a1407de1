"""From `sdrun generate` to the picture, image present: native code against PTX that the driver compiles, and the container
against the bare engine.

    python bench/flux_weights.py WEIGHTS --double 2 --single 4 --types q4_0
    python bench/cold_start.py --flux WEIGHTS [--image REF] [--jit REF] [--runs 5] [--jit-runs 2] [--only NAME] [--drop N]

Needs a GPU and Docker with CDI. Models: `flux`, random weights of FLUX's width (512x512, 4 steps), and `shapes`, which ships.
For each, in turn and in changing order:

- `generate`: the whole command, from its start to its end
- `container`: the same container, from the request to make it to its removal, by a process that is there already
- `bare`: the same program, taken out of the image, with its own libraries, without a container
- `jit`: `generate` with an image that holds PTX alone, which is how an engine built with its default archs meets a GPU that
  none of them fits; its cache of compiled kernels is empty. `jit_again`: once more, with the cache that the first run left

In `warm` rounds the files lie in the page cache, in `dropped` ones the kernel was told to forget them (root only; left out and
said so elsewhere). GPU and driver are awake in both. The profile says where the time of `generate` goes: by the daemon's events
and by what the engine says of itself. One part that fails is recorded as such and the rest goes on.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import phases  # noqa: E402
import record  # noqa: E402
from bare import Bare, unpacked  # noqa: E402

from sdrun.errors import SdrunError  # noqa: E402
from sdrun.launch.choosing import Fetching, Wishes  # noqa: E402
from sdrun.launch.generate import prepare  # noqa: E402
from sdrun.launch.preparing import run_name  # noqa: E402
from sdrun.launch.request import Request  # noqa: E402
from sdrun.launch.watch import Listener  # noqa: E402
from sdrun.runtime import connect  # noqa: E402
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec  # noqa: E402

CONTROL = "sdrun-control:ptx80"
GOALS = {"jit / generate, at least": 12.0, "container / bare, at most": 1.10}
FAULTS = (OSError, subprocess.SubprocessError, SdrunError, ValueError, LookupError, StopIteration)
# What the engine says of its own phases (src/model.cpp, src/stable-diffusion.cpp at 90e87bc), in seconds.
_SAYS = {
    "loading weights": re.compile(r"loading tensors completed, taking ([0-9.]+)s"),
    "reading the prompt": re.compile(r"get_learned_condition completed, taking ([0-9.]+)s"),
    "sampling": re.compile(r"sampling completed, taking ([0-9.]+)s"),
    "decoding": re.compile(r"decode_first_stage completed, taking ([0-9.]+)s"),
}


@dataclass(frozen=True)
class Model:
    """What is drawn: `words` are for sdrun."""

    name: str
    what: str
    words: tuple[str, ...]
    request: Request


@dataclass
class Bench:
    """What all runs share; `gpu` and `image` are words for --gpu and --image."""

    runtime: ContainerRuntime
    image: str
    gpu: str
    work: Path
    profile: list[dict[str, float]] = field(default_factory=list)

    def environ(self, cache: Path) -> dict[str, str]:
        """Of sdrun: a cache folder of its own, where compiled kernels are kept as well."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        own = {"PYTHONPATH": path, "SDRUN_STATE_DIR": str(self.work / "state"), "SDRUN_CACHE_DIR": str(cache)}
        return {**{name: value for name, value in os.environ.items() if name not in ("SDRUN_REGISTRY", "SDRUN_INDEX")}, **own}

    def on(self) -> tuple[str, ...]:
        """The words that say on which device."""
        return ("--gpu", self.gpu, *(("--allow-cpu",) if self.gpu == "none" else ()))

    def generate(self, model: Model, image: str, cache: Path) -> float:
        """Seconds of the command; how they were spent is added to the profile."""
        argv = [sys.executable, "-m", "sdrun", "--quiet", "generate", *model.words, *self.on(), "--image", image]
        argv += ["-o", str(self.work / f"{model.name}.png"), "--json"]
        begun, begin = time.time_ns(), time.perf_counter()
        done = subprocess.run(argv, env=self.environ(cache), check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        self.profile.append(spent(begun, seconds, json.loads(done.stdout)))
        return seconds

    def spec(self, model: Model, image: str) -> ContainerSpec:
        """The container that `generate` would start."""
        wishes = Wishes(gpu=self.gpu, allow_cpu=self.gpu == "none", image=image)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SDRUN_")}
        prepared, _ = prepare(model.request, wishes, Fetching(pull=False), Listener(), lambda: self.runtime, environ)
        return prepared.spec(self.work, "again.png", run_name())

    def contained(self, spec: ContainerSpec) -> float:
        """Seconds of the container, creation and removal included."""
        output: list[bytes] = []
        begin = time.perf_counter()
        ended = self.runtime.run(spec, lambda stream, data: output.append(data))
        seconds = time.perf_counter() - begin
        if ended.code:
            raise ValueError(f"the engine ended with {ended.code}: {b''.join(output)[-400:].decode(errors='replace')}")
        return seconds


def spent(begun: int, seconds: float, answer: Mapping[str, Any]) -> dict[str, float]:
    """Where the time of one command went. `begun` in nanoseconds since the epoch."""
    since, until = f"{begun / 1e9:.6f}", f"{time.time():.6f}"
    container = "sdrun-" + Path(answer["log"]).stem.rpartition("-sdrun-")[2]
    argv = ["docker", "events", "--since", since, "--until", until, "--filter", f"container={container}"]
    argv += ["--format", "{{json .}}"]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    at = {event["Action"]: (event["timeNano"] - begun) / 1e9 for event in map(json.loads, lines)}
    log = Path(answer["log"]).read_text(errors="replace")
    engine = at["die"] - at["start"]
    said = {name: float(found[1]) for name, pattern in _SAYS.items() if (found := pattern.search(log))}
    return {
        "sdrun, until the container is made": at["create"],
        "container: start": at["start"] - at["create"],
        **{f"engine: {name}": value for name, value in said.items()},
        "engine: its start, CUDA's, the PNG": engine - sum(said.values()),
        "container: removal": at["destroy"] - at["die"],
        "sdrun, after the container": seconds - at["destroy"],
        "in all": seconds,
    }


def models(flux: Path | None) -> list[Model]:
    """The models to draw with."""
    found = []
    if flux is not None:
        files = f"diffusion={flux / 'flux-q4_0.gguf'},clip_l={flux / 'clip_l.gguf'},vae={flux / 'vae.gguf'}"
        picture = {"width": 512, "height": 512, "steps": 4, "seed": 42, "cfg_scale": 1.0}
        words = ("-m", files, "-p", "a cat", "-W", "512", "-H", "512", "--steps", "4", "--seed", "42", "--cfg-scale", "1")
        request = Request(files, "a cat", output=Path("again.png"), **picture)  # type: ignore[arg-type]
        found.append(Model("flux", "FLUX's shape, hidden 3072, random Q4_0 weights, 512x512, 4 steps", words, request))
    words = ("-m", "shapes", "-p", "a red circle left of a blue square")
    request = Request("shapes", words[-1], output=Path("again.png"))
    return [*found, Model("shapes", "the model that ships, 24 MB, 256x256, 8 steps", words, request)]


def forget_files() -> bool:
    """Tells the kernel to forget what files it holds; False where that is not allowed."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def rounds(bench: Bench, model: Model, bare: Bare, runs: int, *, drop: bool) -> dict[str, Any]:
    """The series of native runs, in turn, each time beginning with another one; their medians, and the profile's."""
    spec, cache = bench.spec(model, bench.image), bench.work / "cache"
    none = {"CUDA_CACHE_DISABLE": "1"}
    ways: list[tuple[str, Callable[[], float]]] = [
        ("generate", lambda: bench.generate(model, bench.image, cache)),
        ("container", lambda: bench.contained(spec)),
        ("bare", lambda: bare.run(spec, none, bench.work / "bare.log")),
    ]
    for _, way in ways if not drop else ():
        way()  # what is not measured: the first reading of files
    bench.profile.clear()
    series: dict[str, list[float]] = {name: [] for name, _ in ways}
    for turn in range(runs):
        for name, way in ways[turn % 3 :] + ways[: turn % 3]:
            if drop and not forget_files():
                return {"skipped": "the kernel's page cache cannot be dropped here (root alone may)"}
            series[name].append(round(way(), 3))
    return {
        **{name: {"median_s": round(median(values), 3), "runs_s": values} for name, values in series.items()},
        "container_to_bare": round(median(a / b for a, b in zip(series["container"], series["bare"], strict=True)), 3),
        "generate_to_bare": round(median(a / b for a, b in zip(series["generate"], series["bare"], strict=True)), 3),
        "profile_s": {name: round(median(row.get(name, 0.0) for row in bench.profile), 3) for name in bench.profile[0]},
    }


def compiled(bench: Bench, model: Model, image: str, runs: int) -> dict[str, Any]:
    """What `generate` takes where the driver compiles, each time with nothing kept; and once more with what was kept."""
    first, again = [], []
    for turn in range(runs):
        cache = bench.work / f"jit-{turn}"
        first.append(round(bench.generate(model, image, cache), 3))
        again.append(round(bench.generate(model, image, cache), 3))
        shutil.rmtree(cache, ignore_errors=True)
    return {"jit": {"median_s": median(first), "runs_s": first}, "jit_again": {"median_s": median(again), "runs_s": again}}


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part's figures, or why there are none."""
    try:
        return part()
    except subprocess.CalledProcessError as fault:
        said = " ".join(text for text in (fault.stdout, fault.stderr) if isinstance(text, str))
        return {"failed": f"exit {fault.returncode}: {said[-600:]}"}
    except FAULTS as fault:
        return {"failed": f"{type(fault).__name__}: {fault}"}


def ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those that the goals are about, as far as there are figures."""
    found = {}
    warm, jit = figures.get("warm", {}), figures.get("compiled", {})
    if "generate" in warm and "jit" in jit:
        found["jit / generate, at least"] = round(jit["jit"]["median_s"] / warm["generate"]["median_s"], 2)
    if "container_to_bare" in warm:
        found["container / bare, at most"] = warm["container_to_bare"]
    return found


def table(figures: Mapping[str, Any]) -> str:
    """Medians in seconds, a line a model and state of the page cache."""
    lines = [f"{'':<18}{'generate':>10}{'container':>11}{'bare':>8}{'ratio':>7}{'jit':>8}{'again':>8}"]
    for name, row in figures["models"].items():
        for state in ("warm", "dropped"):
            part = row.get(state, {})
            if "generate" not in part:
                lines.append(f"{name + ' ' + state:<18}{part.get('failed') or part.get('skipped') or 'not run'}")
                continue
            seconds = [part[way]["median_s"] for way in ("generate", "container", "bare")]
            line = f"{name + ' ' + state:<18}{seconds[0]:>10.2f}{seconds[1]:>11.2f}{seconds[2]:>8.2f}"
            line += f"{part['container_to_bare']:>7.2f}"
            jit = row.get("compiled", {}) if state == "warm" else {}
            lines.append(line + "".join(f"{jit[key]['median_s']:>8.2f}" for key in ("jit", "jit_again") if key in jit))
        lines.append(f"{'':<18}{json.dumps(row.get('ratios', {}))}")
    return "\n".join(lines)


def measure(bench: Bench, options: argparse.Namespace, write: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Everything, written after each part."""
    local = bench.runtime.image(bench.image)
    assert local is not None  # it was looked for
    figures: dict[str, Any] = {"image": options.image, "jit_image": options.jit, "goals": GOALS, "models": {}}
    bare = unpacked(local, bench.work / "bare")
    for model in models(options.flux):
        if options.only not in (None, model.name):
            continue
        row: dict[str, Any] = {"what": model.what}
        figures["models"][model.name] = row
        row["warm"] = attempt(lambda: rounds(bench, model, bare, options.runs, drop=False))  # noqa: B023 (called at once)
        write(figures)
        jit_runs = options.jit_runs if model.name == "flux" else min(options.jit_runs, 1)
        if jit_runs and bench.runtime.image(options.jit) is not None:
            row["compiled"] = attempt(lambda: compiled(bench, model, options.jit, jit_runs))  # noqa: B023
            row["ratios"] = ratios(row)
            write(figures)
        if options.drop:
            row["dropped"] = attempt(lambda: rounds(bench, model, bare, options.drop, drop=True))  # noqa: B023
        row["ratios"] = ratios(row)
        write(figures)
    words = [
        "--quiet",
        "generate",
        *models(None)[0].words,
        *bench.on(),
        "--image",
        bench.image,
        "-o",
        str(bench.work / "p.png"),
    ]
    figures["sdrun_s"] = attempt(lambda: phases.measured(words, bench.environ(bench.work / "cache"), options.runs))
    write(figures)
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flux", type=Path, help="folder with the files of flux_weights.py; without it shapes alone")
    parser.add_argument("--image", default="", help="tag, id or target; without it what sdrun resolve takes")
    parser.add_argument("--jit", default=CONTROL, help="an image that holds PTX alone")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jit-runs", type=int, default=2, help="of flux; one of shapes")
    parser.add_argument("--drop", type=int, default=2, metavar="N", help="rounds with the page cache dropped")
    parser.add_argument("--only", choices=("flux", "shapes"))
    parser.add_argument(
        "--gpu", default="auto", help="none measures the cpu image, which is no result: the run is not recorded"
    )
    options = parser.parse_args(argv)
    runtime = connect("docker")
    with tempfile.TemporaryDirectory(prefix="cold-start-") as folder:
        wishes = Wishes(gpu=options.gpu, allow_cpu=options.gpu == "none", image=options.image or None)
        prepared, _ = prepare(models(None)[0].request, wishes, Fetching(pull=False), Listener(), lambda: runtime)
        chosen = prepared.decided.chosen
        options.image = options.image or chosen.plan.target
        bench = Bench(runtime, chosen.image, options.gpu, Path(folder))

        def write(figures: Mapping[str, Any]) -> None:
            if options.gpu == "none":
                print(json.dumps(figures, indent=1))
            else:
                record.write("cold_start", figures, gpu=True)

        print(table(measure(bench, options, write)))
    runtime.close()


if __name__ == "__main__":
    main()
