"""What `sdrun generate` adds to the engine's own time, and where it goes.

    python bench/overhead.py [RUNS] [--record]

Needs a Docker daemon and the cpu image (sdrun build cpu). Each run draws one 64x64 picture of the model tiny in one step; the
overhead is its wall time less the engine's own by the runtime's clock (Exit.seconds). The parts are measured by themselves:

- `typer`: an empty typer program, the floor of any such command line
- `client`: importing docker-py in a fresh process, less an empty Python
- `container`: a container of the same image, closed in the same way, that ends at once (`sd-cli --version`): create, attach,
  start, follow, removal; less the time its process ran
- `rest`: what is left: reading the catalogues, probing the host, choosing, checking and moving the picture

Medians; the smallest and largest and the load of the machine stand beside them. Runs of the parts alternate, so that a machine
that is busy for a while is so for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import record

from sdrun.launch.choosing import local_index
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Mount

RUNS = 10
EMPTY = """import typer
app = typer.Typer()
@app.command()
def main() -> None: pass
app()
"""
GENERATE = ("generate", "-m", "tiny", "--allow-cpu", "--gpu", "none", "-p", "x", "--steps", "1", "-W", "64", "-H", "64")


def wall(argv: list[str]) -> tuple[float, bytes]:
    """Seconds and standard output of one process."""
    begin = time.perf_counter()
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin, done.stdout


def generated(folder: Path) -> tuple[float, float]:
    """Wall seconds of one picture, and those that were not the engine's."""
    words = ["--quiet", *GENERATE, "-o", str(folder / "x.png"), "--json"]
    seconds, out = wall([sys.executable, "-m", "sdrun", *words])
    return seconds, seconds - float(json.loads(out)["seconds"]["engine"])


def contained(runtime: ContainerRuntime, image: str, folder: Path) -> float:
    """Seconds of one container from creation to removal, less its process's own."""
    spec = ContainerSpec(
        image, ("--version",), f"{os.geteuid()}:{os.getegid()}", mounts=(Mount(folder, "/out", False),), tmpfs=("/tmp",)
    )
    begin = time.perf_counter()
    end = runtime.run(spec, lambda stream, data: None)
    return time.perf_counter() - begin - end.seconds


def measure(runs: int) -> dict[str, list[float]]:
    """All series, one value a run."""
    runtime = connect("docker")
    image = next(row.image for row in local_index(runtime)[0].images if row.is_cpu)
    python = [sys.executable, "-c"]
    series: dict[str, list[float]] = {name: [] for name in ("wall", "overhead", "typer", "client", "container")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generated(folder)  # makes the model, warms the disk's cache
        for _ in range(runs):
            seconds, added = generated(folder)
            series["wall"].append(seconds)
            series["overhead"].append(added)
            series["typer"].append(wall([*python, EMPTY])[0])
            series["client"].append(wall([*python, "import docker"])[0] - wall([*python, "pass"])[0])
            series["container"].append(contained(runtime, image, folder))
    runtime.close()
    return series


def main() -> None:
    """Prints the figures; with --record also into bench/results/overhead.json."""
    numbers = [word for word in sys.argv[1:] if word.isdigit()]
    series = measure(int(numbers[0]) if numbers else RUNS)
    figures: dict[str, object] = {
        name: {"median_s": round(median(row), 3), "min_s": round(min(row), 3), "max_s": round(max(row), 3)}
        for name, row in series.items()
    }
    parts = sum(median(series[name]) for name in ("typer", "client", "container"))
    figures["rest"] = {"median_s": round(median(series["overhead"]) - parts, 3)}
    figures |= {"runs": len(series["wall"]), "load_average": [round(load, 1) for load in os.getloadavg()]}
    if "--record" in sys.argv:
        record.write("overhead", figures)
    else:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
