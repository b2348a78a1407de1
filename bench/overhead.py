"""What `sdrun generate` adds to a `docker run` of the same container, and where the time goes.

    python bench/overhead.py [--runs N] [--record] [--gpu] [GENERATE OPTIONS ...]

Needs a container runtime and an image that fits. The container command is the one that `sdrun generate --dry-run` prints:
same image, mounts, limits and arguments; its picture is not checked and carries no record. Both commands run in turn, each as a
whole process with its output thrown away, first one and then the other being the first of a pair.

- `added`: wall seconds of sdrun less those of the container command, pair by pair
- `added_net`: the same without what the engine itself took (by the daemon's events), whose time differs from run to run
- `processor`: user and system seconds of the client processes and what they started, without the daemon's
- `phases`: where sdrun's own time goes (phases.py), measured in runs of its own

Without options the picture is the tiny model's, 64x64, one step, on the CPU; `--gpu` takes the shapes model on the GPU, and the
result is named after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import phases
import record

RUNS = 10
GOAL_S = 0.6
ON_CPU = ("-m", "tiny", "--allow-cpu", "--gpu", "none", "--steps", "1", "-W", "64", "-H", "64")
ON_GPU = ("-m", "shapes", "--gpu", "auto")
PROMPT = "a red circle"


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of one command: by the clock, of processors, and of the engine in it (0 where the runtime does not tell)."""

    wall: float
    processor: float
    engine: float

    @property
    def net(self) -> float:
        """Everything but the engine."""
        return self.wall - self.engine


def program() -> list[str]:
    """The console script of this Python, else what it does."""
    script = Path(sys.executable).with_name("sdrun")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from sdrun.__main__ import main; main()"]


def environment() -> Mapping[str, str]:
    """With this checkout's sdrun, also where none is installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(record.ROOT), os.environ.get("PYTHONPATH"))))}


def timed(argv: Sequence[str], runtime: str) -> Run:
    """One run. SystemExit with what it said where it fails."""
    since = time.time()
    begin = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        sys.exit(f"{shlex.join(argv)}\nended with {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return Run(wall, used.ru_utime + used.ru_stime, engine_seconds(runtime, since))


def engine_seconds(runtime: str, since: float) -> float:
    """From the start to the end of the one container that ran since then, by the daemon's clock."""
    argv = [runtime, "events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}", "--format", "{{json .}}"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    at: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        attributes = event.get("Actor", {}).get("Attributes", {})
        if "io.sdrun.run-target" in attributes:
            at.setdefault(str(event.get("Action")), []).append(int(event["timeNano"]))
    started, ended = at.get("start", []), at.get("die", [])
    return (ended[0] - started[0]) / 1e9 if len(started) == len(ended) == 1 else 0.0


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest, in seconds."""
    return {"median_s": round(median(values), 3), "min_s": round(min(values), 3), "max_s": round(max(values), 3)}


def measure(options: Sequence[str], runs: int, folder: Path) -> dict[str, object]:
    """All figures."""
    words = ["--quiet", "generate", "-p", PROMPT, *options, "-o", str(folder / "x.png")]
    subprocess.run([*program(), *words], check=True, stdout=subprocess.DEVNULL, env=environment())  # makes or unpacks the model
    printed = subprocess.run(
        [*program(), *words, "--dry-run"], check=True, stdout=subprocess.PIPE, text=True, env=environment()
    )
    container, ours = shlex.split(printed.stdout), [*program(), *words]
    runtime = container[0]
    timed(container, runtime), timed(ours, runtime)  # warm file caches
    pairs: list[tuple[Run, Run]] = []
    for number in range(runs):
        first, second = (ours, container) if number % 2 else (container, ours)
        one, other = timed(first, runtime), timed(second, runtime)
        pairs.append((one, other) if number % 2 else (other, one))
    known = [(a, b) for a, b in pairs if a.engine and b.engine]
    return {
        "sdrun": summary([a.wall for a, _ in pairs]),
        "container_command": summary([b.wall for _, b in pairs]),
        "added": summary([a.wall - b.wall for a, b in pairs]),
        "added_net": summary([a.net - b.net for a, b in known]) if known else None,
        "engine": summary([run.engine for pair in known for run in pair]) if known else None,
        "processor": {
            "sdrun": summary([a.processor for a, _ in pairs]),
            "container_command": summary([b.processor for _, b in pairs]),
        },
        "phases": phases.measured(words, environment(), min(runs, 5)),
        "goal_s": GOAL_S,
        "runs": runs,
        "generate": shlex.join(options),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def main() -> None:
    """Prints the figures, and a short table last; with --record the figures also go into a file."""
    parser = argparse.ArgumentParser(description="What sdrun generate adds to the container command it prints.")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="the shapes model on this machine's GPU")
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(options or (ON_GPU if arguments.gpu else ON_CPU), arguments.runs, Path(name))
    if arguments.record:
        record.write("overhead", figures, gpu=arguments.gpu)
    else:
        print(json.dumps(figures, indent=2))
    for row in ("sdrun", "container_command", "added", "added_net"):
        print(f"{row:18}", figures[row])


if __name__ == "__main__":
    main()
