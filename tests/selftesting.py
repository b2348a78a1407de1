"""A runtime's script that plays the engine in the self-test: sound, or with one kernel family broken."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gpuhost import HOST
from PIL import Image

from sdrun.catalog.selftest import pictures_dir, selftest
from sdrun.core.host import RuntimeFacts
from sdrun.core.selftest import Backend, Probe
from sdrun.launch.choosing import Wishes
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage

SUITE = selftest()
STARTED = b"ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes\n"
FELL_BACK = b"[INFO ] stable-diffusion.cpp:180  - No GPU device found, fallback to CPU backend\n"
DRAWN = b"[INFO ] main.cpp:490  - 1/1 images saved\n"
ABORTED = b"ggml-cuda/mmq.cuh:4242: fatal error\n"
ON: dict[Backend, Wishes] = {"cpu": Wishes(gpu="none", allow_cpu=True), "cuda": Wishes()}
CUDA_LABELS = {
    "io.sdrun.target": "cu124-sm89",
    "io.sdrun.engine": "sdcpp-90e87bc",
    "io.sdrun.platform": "linux/amd64",
    "io.sdrun.toolkit": "12.4",
    "io.sdrun.sass": "89",
    "io.sdrun.ptx": "",
    "io.sdrun.fatbin-compression": "none",
}
CUDA_IMAGE = LocalImage(f"sha256:{'d' * 64}", ("sdrun:sdcpp-90e87bc-cu124-sm89",), (), CUDA_LABELS, 10**9, "linux/amd64")
CUDA_RUNTIME = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",))


def drawn(probe: Probe, levels: int = 0, size: int = SUITE.size) -> bytes:
    """The probe's recorded picture, every value so many levels off."""
    with Image.open(pictures_dir() / probe.picture) as picture:
        values = bytes((value + levels if value < 128 else value - levels) for value in picture.convert("RGB").tobytes())
        other = Image.frombytes("RGB", picture.size, values).crop((0, 0, size, size))
    buffer = io.BytesIO()
    other.save(buffer, "PNG")
    return buffer.getvalue()


def probe_of(spec: ContainerSpec) -> tuple[Probe, str]:
    """Which probe a container is, by what it is told; and the file that it is to write."""
    words = list(spec.command)
    for probe in SUITE.probes:
        given = list(probe.arguments)
        tail = words[len(words) - len(given) :] if given else []
        started = ("--init-img" in words) == (probe.init is not None)
        plain = probe.arguments or not {"--type", "--fa", "--vae-conv-direct"} & set(words)
        if tail == given and started and plain and (probe.arguments != () or words[-1] != "--fa"):
            return probe, words[words.index("--output") + 1]
    raise AssertionError(words)


def engine(backend: Backend, off: str = "", levels: int = 30) -> Callable[[ContainerSpec], Script]:
    """Draws what was recorded; pictures that need the family `off` are so many levels off."""

    def play(spec: ContainerSpec) -> Script:
        probe, name = probe_of(spec)
        harm = levels if off in probe.exercises[backend] else 0
        said = STARTED + DRAWN if backend == "cuda" else DRAWN
        return Script((("stdout", said),), {name: drawn(probe, harm)}, Exit(0, False, 0.5))

    return play


def surround(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the test's own, and a host with a GPU."""
    for name in ("state", "cache"):
        monkeypatch.setenv(f"SDRUN_{name.upper()}_DIR", str(folder / name))
    (folder / "host.json").write_text(json.dumps(HOST))
    monkeypatch.setenv("SDRUN_HOST_FACTS", str(folder / "host.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(folder)


def with_gpu_image(runtime: FakeRuntime) -> FakeRuntime:
    """With an image for the GPU beside that for the CPU."""
    runtime.local.append(CUDA_IMAGE)
    runtime.reported = CUDA_RUNTIME
    return runtime
