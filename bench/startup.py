"""What the command line costs before it does anything: each verb against an empty typer program, in paired runs."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import record

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


def main() -> None:
    """Measures and records."""
    sdrun = [sys.executable, "-m", "sdrun"]
    with tempfile.TemporaryDirectory() as folder:
        empty, host, index = (Path(folder) / name for name in ("empty.py", "host.json", "index.json"))
        empty.write_text(EMPTY)
        host.write_text(json.dumps(HOST))
        index.write_text(json.dumps(_index(60)))
        help_, verb = [sys.executable, str(empty), "--help"], [sys.executable, str(empty), "one"]
        figures = {
            "sdrun --version / empty --help": record.paired([*sdrun, "--version"], help_, 10),
            "sdrun --help / empty --help": record.paired([*sdrun, "--help"], help_, 10),
            "sdrun detect --json / empty verb": record.paired([*sdrun, "detect", "--json"], verb, 10),
            "sdrun resolve --host F --index I --json, 60 images / empty verb": record.paired(
                [*sdrun, "resolve", "--host", str(host), "--index", str(index), "--json"], verb, 10
            ),
        }
    record.write("startup", figures)


if __name__ == "__main__":
    main()
