"""What the command line costs before it does anything: sdrun against an empty typer program, and against RamaLama.

    python bench/startup.py [RUNS]

RamaLama, the nearest program in form (it picks a container image for this machine's GPU and runs a model in it), is installed
from the package index into a virtual environment of its own; where that cannot be, its rows are left out and that is said. Its
dry run prints the container command for a model of its short names; sdrun's answers to it are `resolve` (which image: the facts
of a host and 60 images from files, or this host and the images here) and `generate --dry-run` (the container command). All run
in turn, pair by pair.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

import record

RUNS = 15
RAMALAMA = "0.25.0"
EMPTY = """
import typer
app = typer.Typer()
@app.command()
def one(): pass
@app.command()
def two(): pass
app()
"""
HOST = {
    "schema": "sdrun.host/v1",
    "platform": "linux/amd64",
    "driver_version": "580.159.04",
    "cuda_driver": "13.0",
    "gpus": [
        {
            "index": 0,
            "uuid": "GPU-0",
            "name": "NVIDIA H100 80GB HBM3",
            "compute_capability": "9.0",
            "memory_mib": 81559,
            "mig": [],
        }
    ],
    "runtime": {"name": "docker", "version": "28.5.2", "cdi_devices": ["nvidia.com/gpu=all"], "nvidia_runtime": True},
    "probe": "nvml",
}


def _index(images: int) -> dict[str, object]:
    """An index of `images` CUDA images: every toolkit line with every capability it has code for."""
    rows = [
        {
            "target": f"cu{toolkit.replace('.', '')}-sm{arch}",
            "image": f"registry.example/sdrun@sha256:{number:064x}",
            "platform": "linux/amd64",
            "toolkit": toolkit,
            "sass": [arch],
            "ptx": [],
            "fatbin_compression": "lz4",
        }
        for number, (toolkit, arch) in enumerate(
            (toolkit, arch)
            for toolkit in ("11.8", "12.0", "12.4", "12.6", "12.8", "12.9", "13.0", "13.2")
            for arch in ("75", "80", "86", "87", "89", "90", "100", "120")
        )
    ]
    return {"schema": "sdrun.index/v1", "engine": "sdcpp-90e87bc", "images": rows[:images]}


def program() -> list[str]:
    """The console script of this Python, as users start it."""
    script = Path(sys.executable).with_name("sdrun")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sdrun"]


def ramalama(folder: Path) -> Path | str:
    """RamaLama's console script, installed into `folder`; why not, where it cannot be."""
    venv.create(folder, with_pip=True)
    argv = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"ramalama=={RAMALAMA}"]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return f"RamaLama {RAMALAMA} cannot be installed here: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    return folder / "bin" / "ramalama"


def against_empty(commands: Mapping[str, list[str]], empty: Path, runs: int) -> dict[str, object]:
    """Help against the help, all else against a command, of a typer program that does nothing."""
    python = [sys.executable, str(empty)]
    return {
        f"sdrun {name} / empty {'--help' if name.startswith('--') else 'verb'}": record.paired(
            argv, [*python, "--help" if name.startswith("--") else "one"], runs
        )
        for name, argv in commands.items()
    }


def against_ramalama(commands: Mapping[str, list[str]], other: Path, runs: int) -> dict[str, object]:
    """Help and version against theirs, all else against their dry run."""
    dry = [str(other), "--dryrun", "run", "tiny"]
    theirs = {"--help": ("--help", [str(other), "--help"]), "--version": ("version", [str(other), "version"])}
    rows: dict[str, object] = {}
    for name, argv in commands.items():
        label, baseline = theirs.get(name, ("--dryrun run", dry))
        rows[f"sdrun {name} / ramalama {label}"] = record.paired(argv, baseline, runs)
    return rows


def main() -> None:
    """Measures and records."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    sdrun = program()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty, host, index = (folder / name for name in ("empty.py", "host.json", "index.json"))
        empty.write_text(EMPTY)
        host.write_text(json.dumps(HOST))
        index.write_text(json.dumps(_index(60)))
        commands = {
            "--version": [*sdrun, "--version"],
            "--help": [*sdrun, "--help"],
            "detect --json": [*sdrun, "detect", "--json"],
            "resolve --host F --index I --json, 60 images": [
                *(*sdrun, "resolve", "--host", str(host), "--index", str(index), "--json")
            ],
            "resolve --allow-cpu": [*sdrun, "resolve", "--gpu", "none", "--allow-cpu"],
            "generate --dry-run": [
                *(*sdrun, "--quiet", "generate", "-m", "tiny", "-p", "x", "--gpu", "none", "--allow-cpu", "--dry-run")
            ],
        }
        figures = against_empty(commands, empty, runs)
        other = ramalama(folder / "ramalama")
        if isinstance(other, str):
            print(other, file=sys.stderr)
            figures["ramalama"] = other
        else:
            figures |= against_ramalama(commands, other, runs) | {"ramalama": RAMALAMA}
    record.write("startup", figures)


if __name__ == "__main__":
    main()
