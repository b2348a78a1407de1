"""What sdrun says a model needs, against what the engine takes: buffers by the engine's own words, the peak by nvidia-smi (GPU)
or by the kernel's count of the process's resident pages (CPU).

    python bench/fit.py --engine /path/to/sd-cli            # on the GPU where nvidia-smi finds one, else on the CPU
    python bench/fit.py --image sdrun:sdcpp-90e87bc-cu124-sm90
    python bench/fit.py --engine sd-cli --only flux --quick

The models have the shapes of real ones and no weights (tests/fabricated): sparse files, so nothing is downloaded and no disk is
used. The engine draws one step of nothing, which takes the memory of a picture. An estimate should be an upper bound, and not
more than a quarter above what was taken; exit 1 where one was too low.
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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from fabricated import shapes, sparse  # noqa: E402

from sdrun.core.fit import FLASH, OFFLOAD, TEXT_ON_CPU, TILING, Needs, peak  # noqa: E402
from sdrun.core.model import ModelFiles  # noqa: E402
from sdrun.core.needs import needs  # noqa: E402
from sdrun.models.family import check_file_set  # noqa: E402

OPTIONS = {
    "model": "-m",
    "diffusion": "--diffusion-model",
    "llm": "--llm",
    "vae": "--vae",
    "clip_l": "--clip_l",
    "clip_g": "--clip_g",
    "t5xxl": "--t5xxl",
}
MAKERS: Mapping[str, tuple[Callable[[], shapes.Shapes], str]] = {
    "clip_l": (shapes.clip, "f16"),
    "clip_g": (shapes.clip_g, "f16"),
    "t5": (shapes.t5, "q8_0"),
    "vae4": (lambda: shapes.vae(4, quant=True), "f16"),
    "vae16": (shapes.vae, "f16"),
    "vae32": (lambda: shapes.vae(32, quant=True), "f16"),
    "video-vae": (shapes.video_vae, "f16"),
    "flux": (shapes.flux, "q4_0"),
    "flux-short": (lambda: shapes.flux(double=1, single=1), "q4_0"),
    "klein": (shapes.klein, "q4_0"),
    "z-image": (shapes.z_image, "q4_0"),
    "sd3": (shapes.sd3, "q4_0"),
    "qwen-image": (shapes.qwen_image, "q4_0"),
    "sd1": (shapes.sd1, "f16"),
    "sdxl": (shapes.sdxl, "f16"),
    "qwen3": (shapes.llm, "q4_0"),
    "qwen2.5": (lambda: shapes.llm("qwen2.5", 3584, 28, 18944, 152064), "q4_0"),
}
SETS: Mapping[str, Mapping[str, str]] = {
    "sd1": {"model": "sd1"},
    "sdxl": {"model": "sdxl"},
    "flux": {"diffusion": "flux", "clip_l": "clip_l", "t5xxl": "t5", "vae": "vae16"},
    "flux-short": {"diffusion": "flux-short", "clip_l": "clip_l", "vae": "vae16"},
    "sd3": {"diffusion": "sd3", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5", "vae": "vae16"},
    "klein": {"diffusion": "klein", "llm": "qwen3", "vae": "vae32"},
    "z-image": {"diffusion": "z-image", "llm": "qwen3", "vae": "vae16"},
    "qwen-image": {"diffusion": "qwen-image", "llm": "qwen2.5", "vae": "video-vae"},
}
ON_GPU: Sequence[tuple[str, int, tuple[str, ...]]] = [
    ("sd1", 512, ()),
    ("sd1", 1024, (FLASH,)),
    ("sdxl", 1024, ()),
    ("sdxl", 1024, (FLASH, TILING)),
    ("flux", 512, ()),
    ("flux", 1024, ()),
    ("flux", 1024, (FLASH,)),
    ("flux", 1024, (FLASH, TILING)),
    ("flux", 1024, (FLASH, TILING, TEXT_ON_CPU)),
    ("flux", 1024, (FLASH, TILING, OFFLOAD)),
    ("flux", 1536, (FLASH,)),
    ("sd3", 1024, ()),
    ("klein", 1024, ()),
    ("klein", 1024, (FLASH,)),
    ("z-image", 1024, ()),
    ("z-image", 1024, (FLASH, TILING, OFFLOAD)),
    ("qwen-image", 1024, ()),
    ("qwen-image", 1024, (FLASH,)),
]
ON_CPU: Sequence[tuple[str, int, tuple[str, ...]]] = [
    ("flux-short", 256, ()),
    ("flux-short", 256, (FLASH,)),
    ("sd1", 256, ()),
    ("sd1", 256, (FLASH, TILING)),
]
QUICK = 4  # cases with --quick
LIMIT_S = 300
_BUFFER = re.compile(rb"(\w+) compute buffer size: ([0-9.]+) MB")
_PARAMS = re.compile(rb"total params memory size = ([0-9.]+)MB")
_DECODERS = (b"vae", b"wan_vae", b"taesd")
_READERS = (b"clip", b"t5", b"qwen3", b"5vl")


@dataclass(slots=True)
class Row:
    """One run. MiB; `taken` is the peak, of the GPU or of RAM; `ratio` estimate over taken."""

    model: str
    size: int
    options: tuple[str, ...]
    estimate: float
    taken: float = 0.0
    ratio: float = 0.0
    seconds: float = 0.0
    exit: int = 0
    needs: dict[str, float] = field(default_factory=dict)
    engine: dict[str, float] = field(default_factory=dict)


class GpuMeter:
    """Reads the used memory of GPU 0 all the time; the highest value above the one at the start is the peak."""

    def __init__(self) -> None:
        query = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "20"]
        self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        self.base: int | None = None
        self.peak = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while self.base is None and self._process.poll() is None:
            time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                used = int(line)
                self.base = used if self.base is None else self.base
                self.peak = max(self.peak, used - self.base)

    def stop(self) -> int:
        """Ends the reading; the peak in MiB."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        return self.peak


def command(arguments: argparse.Namespace, files: Mapping[str, Path], folder: Path, gpu: bool) -> list[str]:
    """The engine, or a container of it that sees the same paths."""
    if arguments.engine:
        found = shutil.which(arguments.engine) or arguments.engine
        head = [found]
    else:
        head = ["docker", "run", "--rm", "--network=none", f"--volume={folder}:{folder}", f"--user={os.getuid()}:{os.getgid()}"]
        head += [
            *(["--device=nvidia.com/gpu=all"] if gpu and arguments.cdi else ["--gpus=all"] if gpu else []),
            arguments.image,
        ]
    return [*head, *(word for role, path in files.items() for word in (OPTIONS[role], str(path)))]


def run(argv: Sequence[str], row: Row, gpu: bool, cpu_stop: bool) -> None:
    """Fills in what was seen. On the CPU the run ends as soon as the last buffer was told, where only those are wanted."""
    meter = GpuMeter() if gpu else None
    started = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    log = bytearray()
    while data := os.read(process.stdout.fileno(), 65536):
        log += data
        if cpu_stop and any(name + b" compute buffer size" in log for name in _DECODERS):
            process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    row.exit = 0 if cpu_stop else os.waitstatus_to_exitcode(status)
    row.seconds = round(time.monotonic() - started, 1)
    row.taken = float(meter.stop()) if meter else usage.ru_maxrss / 1024
    buffers = {name: float(size) for name, size in _BUFFER.findall(bytes(log))}
    row.engine = {
        "weights": float(found[1]) if (found := _PARAMS.search(log)) else 0.0,
        "reading": max((size for name, size in buffers.items() if name in _READERS), default=0.0),
        "drawing": max((size for name, size in buffers.items() if name not in (*_READERS, *_DECODERS)), default=0.0),
        "decoding": max((size for name, size in buffers.items() if name in _DECODERS), default=0.0),
    }
    row.ratio = round(row.estimate / row.taken, 3) if row.taken else 0.0
    if row.exit:
        print(bytes(log[-2000:]).decode(errors="replace"), file=sys.stderr)


def rows(arguments: argparse.Namespace, folder: Path, gpu: bool) -> Iterator[Row]:
    """Every case, measured."""
    cases = [case for case in (ON_GPU if gpu else ON_CPU) if not arguments.only or case[0] == arguments.only]
    for name, side, options in cases[: QUICK if arguments.quick else None]:
        files = {}
        for role, made in SETS[name].items():
            maker, kind = MAKERS[made]
            path = folder / f"{made}.gguf"
            files[role] = path if path.exists() else sparse.write(path, maker(), kind)
        wanted = needs(check_file_set(ModelFiles(name, MappingProxyType(files), None)), side, side)
        assert wanted is not None, name
        estimate = peak(wanted, options, gpu)
        row = Row(name, side, options, round(estimate.gpu if gpu else estimate.host, 1), needs=_by_stage(wanted, options))
        argv = command(arguments, files, folder, gpu)
        argv += [
            "-p",
            "a fox in the snow",
            "-W",
            str(side),
            "-H",
            str(side),
            "--steps",
            "1",
            "--cfg-scale",
            "1",
            "-v",
            *options,
        ]
        run([*argv, "-o", str(folder / "out.png")], row, gpu, cpu_stop=not gpu and not arguments.whole)
        yield row


def _by_stage(wanted: Needs, options: Sequence[str]) -> dict[str, float]:
    return {
        "weights": round(wanted.weights, 1),
        "reading": wanted.reading,
        "drawing": round(wanted.drawing_flash if FLASH in options else wanted.drawing, 1),
        "decoding": round(wanted.decoding_tiled if TILING in options else wanted.decoding, 1),
    }


def line(row: Row) -> str:
    """The table's line: estimated and told by the engine, for weights and buffers."""
    stages = ("weights", "drawing", "decoding")
    pairs = "".join(f"{row.needs[name]:.0f}/{row.engine[name]:.0f}".ljust(12) for name in stages)
    failed = f" exit {row.exit}" if row.exit else ""
    head = f"{row.model:<12}{row.size:>5} {row.estimate:>9.0f}{row.taken:>8.0f}{row.ratio:>7.2f}"
    return f"{head}  {pairs}{' '.join(row.options)}{failed}"


def device(gpu: bool) -> str:
    """Name and driver of GPU 0, or `cpu`."""
    if not gpu:
        return "cpu"
    query = ["nvidia-smi", "-i", "0", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Measures, prints a table, writes JSON; 1 where an estimate was below what was taken, or a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engine = parser.add_mutually_exclusive_group(required=True)
    engine.add_argument("--engine", help="an sd-cli")
    engine.add_argument("--image", help="an image whose entry point it is")
    parser.add_argument("--cdi", action="store_true", help="hand the GPU to the container by CDI")
    parser.add_argument("--only", choices=SETS, help="one model")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} cases")
    parser.add_argument("--whole", action="store_true", help="on the CPU: run to the end, so that the peak is the run's")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU although a GPU is here")
    parser.add_argument("--out", type=Path, help="write JSON here")
    arguments = parser.parse_args()
    gpu = not arguments.cpu and shutil.which("nvidia-smi") is not None
    if arguments.image and not gpu:
        parser.error("on the CPU the memory of a process is measured: name an --engine, not an --image")
    print(f"{'MODEL':<12}{'SIZE':>5} {'ESTIMATE':>9}{'TAKEN':>8}{'RATIO':>7}  WEIGHTS     DRAWING     DECODING    OPTIONS")
    done: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fit-") as folder:
        for row in rows(arguments, Path(folder), gpu):
            done.append(row)
            print(line(row), flush=True)
    if arguments.out:
        arguments.out.write_text(
            json.dumps(
                {"date": time.strftime("%Y-%m-%d"), "device": device(gpu), "rows": [asdict(row) for row in done]}, indent=1
            )
            + "\n"
        )
    judged = [row for row in done if gpu or arguments.whole]
    low = [row for row in judged if row.ratio < 1]
    if judged:
        ratios = sorted(row.ratio for row in judged)
        print(f"{len(judged)} runs; estimates {ratios[0]:.2f} to {ratios[-1]:.2f} of the peak; {len(low)} too low")
    return 1 if low or any(row.exit for row in done) else 0


if __name__ == "__main__":
    sys.exit(main())
