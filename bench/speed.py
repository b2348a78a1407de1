"""Steps a second on weights of FLUX's real width: each option, variable and build measured by itself against the run without.

    python bench/flux_weights.py WEIGHTS
    python bench/speed.py WEIGHTS --engine shipped=/path/to/sd-cli [--engine "NAME=VAR=VALUE ... PATH"] [--image NAME=REF]
                          [--budget 240] [--out FOLDER]

Runs what speed.yaml lists until `--budget` seconds are over, and writes FOLDER/speed.json (FOLDER is OUT_DIR, else
bench/results). The first engine named is the one that all others, and all pictures, are compared with. An image runs in a
container as closed as that of `sdrun generate`, with the GPU by CDI where the runtime knows it.

A step's time is what lies between two of the engine's progress lines, read as they come; the first step is left out. Peak
memory is nvidia-smi's `memory.used` above what it was before the run, asked every 50 ms; with it come clock and power, to tell
a throttled GPU. A picture's difference is from the one of the same type, size and steps that the first engine drew without
options: mean and greatest of 255. A picture of one colour, or nearly so, is called black.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import record
import yaml
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1])]

GROUPS = Path(__file__).with_suffix(".yaml")
LIMIT_S = 90.0  # of one run
FLAT = 3.0  # deviation of a picture's values below which it is called black
_STEP = re.compile(rb"\| (\d+)/(\d+) - [0-9.]+(?:it/s|s/it)")
_SPANS = {
    "text_s": re.compile(rb"get_learned_condition completed, taking ([0-9.]+)s"),
    "sampling_s": re.compile(rb"sampling completed, taking ([0-9.]+)s"),
    "decode_s": re.compile(rb"decode_first_stage completed, taking ([0-9.]+)s"),
    "picture_s": re.compile(rb"generate_image completed in ([0-9.]+)s"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is run."""

    engine: str
    type: str
    size: int
    steps: int
    options: str = ""
    env: tuple[tuple[str, str], ...] = ()

    @property
    def plain(self) -> tuple[str, int, int]:
        """Pictures of cases that share this are compared."""
        return self.type, self.size, self.steps

    @property
    def told(self) -> str:
        """The options and variables, for people."""
        return " ".join([self.options, *(f"{name}={value}" for name, value in self.env)]).strip() or "-"


@dataclass(slots=True)
class Run:
    """One run of a case. Times in seconds; `steps` without the first."""

    exit: int
    wall_s: float
    first_step_s: float = 0.0
    steps: list[float] = field(default_factory=list)
    spans: dict[str, float] = field(default_factory=dict)
    peak_mib: int | None = None
    clock_mhz: int | None = None
    power_w: int | None = None
    picture: Path | None = None
    tail: str = ""


class Meter:
    """Reads GPU 0's used memory, clock and power all the time."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int, float]] = []
        query = "--query-gpu=memory.used,clocks.sm,power.draw"
        argv = ["nvidia-smi", "-i", "0", query, "--format=csv,noheader,nounits", "-lms", "50"]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        while not self.samples and self._process.poll() is None:
            time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            used, clock, power = (word.strip() for word in line.split(","))
            if used.isdigit() and clock.isdigit():
                self.samples.append((time.monotonic(), int(used), int(clock), float(power) if power[:1].isdigit() else 0.0))

    def fill(self, run: Run, begin: float, sampling: tuple[float, float]) -> None:
        """What was seen from `begin` on, clock and power while steps were drawn."""
        before = [used for at, used, _, _ in self.samples if at <= begin]
        since = [sample for sample in self.samples if sample[0] > begin]
        if not before or not since:
            return
        run.peak_mib = max(used for _, used, _, _ in since) - before[-1]
        drawing = [sample for sample in since if sampling[0] <= sample[0] <= sampling[1]]
        if drawing:
            run.clock_mhz = round(statistics.median(clock for _, _, clock, _ in drawing))
            run.power_w = round(statistics.median(power for _, _, _, power in drawing))

    def close(self) -> None:
        """Ends the reading."""
        self._process.terminate()
        self._process.wait()


@dataclass(frozen=True, slots=True)
class Engine:
    """A program, or an image, that draws."""

    name: str
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""

    def command(
        self, words: Sequence[str], env: Mapping[str, str], weights: Path, out: Path
    ) -> tuple[list[str], dict[str, str]]:
        """The argv, and the environment to start it in."""
        if not self.image:
            return [*self.argv, *words], {**os.environ, "GGML_NO_BACKTRACE": "1", **self.env, **env}
        from sdrun.runtime import connect
        from sdrun.runtime.protocol import ContainerSpec, GpuRequest, Mount

        cache = out / "jit-cache"
        cache.mkdir(exist_ok=True)
        runtime = connect()
        devices = runtime.facts().cdi_devices
        gpu = GpuRequest("cdi", ("nvidia.com/gpu=all",)) if devices else GpuRequest("gpus-flag", ("all",))
        spec = ContainerSpec(
            image=self.image,
            command=tuple(words),
            user=f"{os.geteuid()}:{os.getegid()}",
            mounts=(Mount(weights, str(weights)), Mount(out, str(out), read_only=False)),
            environment={"HOME": "/tmp", "GGML_NO_BACKTRACE": "1", "CUDA_CACHE_PATH": str(cache), **env},
            gpu=gpu if shutil.which("nvidia-smi") else None,
            tmpfs=("/tmp",),
        )
        return runtime.command_line(spec), dict(os.environ)


def engine_of(text: str) -> Engine:
    """`NAME=[VAR=VALUE ...] PATH [ARGUMENT ...]`."""
    name, _, rest = text.partition("=")
    words = shlex.split(rest)
    env = dict(word.partition("=")[::2] for word in itertools.takewhile(lambda word: re.match(r"[A-Z_0-9]+=", word), words))
    return Engine(name, tuple(words[len(env) :]), env)


def drawn(case: Case, engine: Engine, weights: Path, out: Path, meter: Meter | None, number: int) -> Run:
    """Runs a case once."""
    picture = out / f"{number}.png"
    words = ["--diffusion-model", f"{weights}/flux-{case.type}.gguf", "--clip_l", f"{weights}/clip_l.gguf"]
    words += ["--vae", f"{weights}/vae.gguf", "-p", "a lighthouse in a storm", "-s", "42", "--cfg-scale", "1"]
    words += ["-W", str(case.size), "-H", str(case.size), "--steps", str(case.steps), *case.options.split()]
    argv, environ = engine.command([*words, "-o", str(picture)], dict(case.env), weights, out)
    begin = time.monotonic()
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, start_new_session=True
    )  # a session of its own: what a wrapper started ends with it
    timer = threading.Timer(LIMIT_S, os.killpg, (process.pid, signal.SIGTERM))
    timer.start()
    log, seen, started = followed(process)
    code = process.wait()
    timer.cancel()
    run = Run(code, round(time.monotonic() - begin, 3))
    run.spans = {name: float(found[1]) for name, what in _SPANS.items() if (found := what.search(log))}
    if seen:
        run.first_step_s = round(seen[0] - started, 4)
        run.steps = [round(after - before, 5) for before, after in itertools.pairwise(seen)]
    if meter is not None:
        meter.fill(run, begin, (seen[0], seen[-1]) if seen else (begin, begin))
    run.picture = picture if code == 0 and picture.exists() else None
    run.tail = "" if code == 0 else log[-1500:].decode(errors="replace")
    return run


def followed(process: subprocess.Popen[bytes]) -> tuple[bytes, list[float], float]:
    """The whole log, when each step ended, and when drawing began."""
    assert process.stdout is not None
    log, seen, started = bytearray(), [], 0.0
    begun = 0  # where in the log drawing begins: bars before that are of loading, bars after its end of tiles
    while data := os.read(process.stdout.fileno(), 65536):
        now = time.monotonic()
        log += data
        if not begun and (at := log.find(b"sampling using")) >= 0:
            begun, started = at, now
        if begun and b"sampling completed" not in log[begun : -len(data) or None]:
            ended = len(set(_STEP.findall(bytes(log[begun:]).partition(b"sampling completed")[0])))
            seen += [now] * (ended - len(seen))
    return bytes(log), seen, started


def cases(group: Mapping[str, Any], names: Sequence[str], sizes: Mapping[str, int], steps: int | None) -> Iterator[Case]:
    """The cases of a group, in order."""
    wanted = group.get("engines", names[:1])
    engines = names if wanted == "all" else [name for name in wanted if name in names]
    for type, engine, env, options in itertools.product(group["types"], engines, group.get("env", [{}]), group["options"]):
        yield Case(engine, type, sizes[group["size"]], steps or group["steps"], options, tuple(env.items()))


def measure(
    arguments: argparse.Namespace, engines: Mapping[str, Engine], out: Path, meter: Meter | None
) -> dict[Case, list[Run]]:
    """Every run that there was time for."""
    end = time.monotonic() + arguments.budget
    done: dict[Case, list[Run]] = {}
    longest: dict[tuple[str, int], float] = {}
    sizes = {"large": arguments.large, "small": arguments.small}
    for group in yaml.safe_load(GROUPS.read_text(encoding="utf-8")):
        if arguments.only and not any(text in group["name"] for text in arguments.only):
            continue
        listed = [case for case in cases(group, list(engines), sizes, arguments.steps) if case.type in arguments.types]
        for case in listed * group["repeats"]:
            expected = longest.get((case.type, case.size), 0.0)
            if time.monotonic() + expected > end:
                print(f"{group['name']}: left out, the time is over", file=sys.stderr)
                return done
            run = drawn(case, engines[case.engine], arguments.weights, out, meter, sum(map(len, done.values())))
            longest[case.type, case.size] = max(expected, run.wall_s)
            done.setdefault(case, []).append(run)
            print(_line(case, [run]), file=sys.stderr, flush=True)
    return done


def row_of(case: Case, runs: Sequence[Run], reference: Path | None) -> dict[str, object]:
    """A case's figures."""
    good = [run for run in runs if run.exit == 0 and run.steps]
    row: dict[str, object] = {
        "engine": case.engine,
        "type": case.type,
        "size": case.size,
        "steps": case.steps,
        "options": case.options,
        "env": dict(case.env),
        "exits": [run.exit for run in runs],
    }
    if good:
        medians = [1 / statistics.median(run.steps) for run in good]
        pooled = statistics.median(step for run in good for step in run.steps)
        row["steps_per_s"] = {"median": round(1 / pooled, 3), "least": round(min(medians), 3), "most": round(max(medians), 3)}
        row["first_step_s"] = round(statistics.median(run.first_step_s for run in good), 3)
    for name in _SPANS:
        values = [run.spans[name] for run in runs if name in run.spans]
        if values:
            row[name] = round(statistics.median(values), 3)
    row["wall_s"] = round(statistics.median(run.wall_s for run in runs), 2)
    for name in ("peak_mib", "clock_mhz", "power_w"):
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if values:
            row[name] = max(values) if name == "peak_mib" else round(statistics.median(values))
    pictures = [run.picture for run in runs if run.picture]
    if pictures:
        row |= judged(pictures, reference)
    if tails := [run.tail for run in runs if run.tail]:
        row["tail"] = tails[0]
    return row


def judged(pictures: Sequence[Path], reference: Path | None) -> dict[str, object]:
    """Whether the pictures are any, are all the same, and how far the first is from the reference."""
    values = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in pictures]
    found: dict[str, object] = {
        "deviation": round(float(values[0].std()), 1),
        "black": bool(min(value.std() for value in values) < FLAT),
        "same_each_time": all(np.array_equal(values[0], value) for value in values),
    }
    if reference is not None:
        apart = np.abs(values[0] - np.asarray(Image.open(reference).convert("RGB"), np.int16))
        found |= {"difference_mean": round(float(apart.mean()), 3), "difference_most": int(apart.max())}
    return found


def references(done: Mapping[Case, list[Run]], first: str) -> dict[tuple[str, int, int], Path]:
    """The pictures that others are compared with."""
    plain = {case: runs for case, runs in done.items() if case.engine == first and not case.options and not case.env}
    return {case.plain: run.picture for case, runs in plain.items() for run in runs[:1] if run.picture}


def _line(case: Case, runs: Sequence[Run]) -> str:
    steps = [step for run in runs for step in run.steps]
    speed = f"{1 / statistics.median(steps):8.2f}" if steps else "       -"
    failed = "".join(f" exit {run.exit}" for run in runs if run.exit)
    decode = max((run.spans.get("decode_s", 0.0) for run in runs), default=0.0)
    return f"{case.engine:<14}{case.type:<6}{case.size:>5}{speed} steps/s, decoded in {decode:.2f} s  {case.told}{failed}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures for people."""
    columns = ("STEPS/S", "LEAST", "MOST", "DECODE", "MIB", "MEAN", "MOST")
    lines = [f"{'ENGINE':<14}{'TYPE':<6}{'SIZE':>5}{''.join(f'{column:>9}' for column in columns)}  OPTIONS"]
    for row in rows:
        speed = row.get("steps_per_s", {})
        figures = [speed.get("median"), speed.get("least"), speed.get("most"), row.get("decode_s"), row.get("peak_mib")]
        figures += [row.get("difference_mean"), row.get("difference_most")]
        numbers = "".join(f"{'-' if figure is None else figure:>9}" for figure in figures)
        told = " ".join([row["options"], *(f"{name}={value}" for name, value in row["env"].items())]).strip() or "-"
        wrong = "  BLACK" if row.get("black") else "  FAILED" if any(row["exits"]) else ""
        lines.append(f"{row['engine']:<14}{row['type']:<6}{row['size']:>5}{numbers}  {told}{wrong}")
    return "\n".join(lines)


def device() -> str | None:
    """Name and driver of GPU 0."""
    if shutil.which("nvidia-smi") is None:
        return None
    argv = ["nvidia-smi", "-i", "0", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Measures, writes, prints; 1 where a run failed or drew nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="what flux_weights.py wrote")
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=PATH", help="an sd-cli")
    parser.add_argument("--image", action="append", default=[], metavar="NAME=REF", help="an image")
    parser.add_argument("--budget", type=float, default=240, help="seconds after which no run is begun")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT_DIR", record.RESULTS)), help="where speed.json goes"
    )
    parser.add_argument("--name", default="speed", help="of the result file")
    parser.add_argument("--only", action="append", help="groups of speed.yaml with this in their name")
    parser.add_argument("--types", default="q4_0,q8_0,f16")
    parser.add_argument("--large", type=int, default=1024)
    parser.add_argument("--small", type=int, default=512)
    parser.add_argument("--steps", type=int, help="of every picture, instead of what speed.yaml says")
    given = parser.parse_args()
    given.types, given.weights = given.types.split(","), given.weights.resolve()
    engines = {engine.name: engine for engine in map(engine_of, given.engine)}
    engines |= {name: Engine(name, image=reference) for name, _, reference in (text.partition("=") for text in given.image)}
    if not engines:
        parser.error("name an --engine or an --image")
    given.out.mkdir(parents=True, exist_ok=True)
    meter = Meter() if shutil.which("nvidia-smi") else None
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        done = measure(given, engines, Path(folder), meter)
        first = references(done, next(iter(engines)))
        rows = [row_of(case, runs, first.get(case.plain)) for case, runs in done.items()]
    if meter is not None:
        meter.close()
    weights = {path.name: path.stat().st_size for path in sorted(given.weights.glob("*.gguf"))}
    record.RESULTS = given.out
    record.write(given.name, {"weights_bytes": weights, "rows": rows}, device())
    print(table(rows))
    return 1 if any(any(row["exits"]) or row.get("black") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
