"""Does a model fit a device, and what must the engine be told so that it does?

The engine's memory is its weights and, for each of three stages (reading the prompt, drawing, decoding), one buffer for what is
computed in between. It frees each part's weights when its stage is over, so the peak is the largest of three sums, not their
sum; its server keeps them all (free_params_immediately, examples/server/main.cpp). Pictures of a batch are drawn one after
another and share everything. All sizes are in MiB.

Where this comes from: src/stable-diffusion.cpp and ggml_extend.hpp of the pinned engine; the buffers' factors stand in
images/families.yaml and were measured (bench/fit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

FLASH, TILING, TEXT_ON_CPU, OFFLOAD = "--diffusion-fa", "--vae-tiling", "--clip-on-cpu", "--offload-to-cpu"
# From what costs nothing to what costs most time; a set is tried after every set whose dearest option is cheaper.
OPTIONS = (FLASH, TILING, TEXT_ON_CPU, OFFLOAD)

# What a process takes beside the engine's own buffers. On a GPU: CUDA's context, cuBLAS and its kernels, as seen with an H100;
# of the buffers, a part again for what ggml-cuda converts on the way (its pool). On the host: vocabularies and libraries.
GPU_BASE = 620.0
GPU_POOL = 0.08
HOST_BASE = 130.0
HOST_BASE_WITH_GPU = 900.0
MARGIN = 1.03  # fragments, alignment


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model needs at one size. Weights of the three parts; buffers of the three stages, drawing and decoding each in
    two ways. `measured` is False where the family's factors are an assumption; `keeps`: no weights are freed between stages."""

    text_weights: float
    diffusion_weights: float
    vae_weights: float
    reading: float
    drawing: float
    drawing_flash: float
    decoding: float
    decoding_tiled: float
    measured: bool = True
    keeps: bool = False

    @property
    def weights(self) -> float:
        """All of them."""
        return self.text_weights + self.diffusion_weights + self.vae_weights


@dataclass(frozen=True, slots=True)
class Room:
    """What there is. `gpu`: free memory of the device, None where the engine runs on the CPU; `host`: free RAM, also the
    container's limit where it has one."""

    gpu: float | None
    host: float


@dataclass(frozen=True, slots=True)
class Peak:
    """The most a run takes, on the device (0 without one) and in RAM."""

    gpu: float
    host: float

    def within(self, room: Room) -> bool:
        """Whether there is room for it."""
        return self.host <= room.host and (room.gpu is None or self.gpu <= room.gpu)


@dataclass(frozen=True, slots=True)
class Fit:
    """It fits: with these options (those the caller already gives are not repeated), for these reasons, a line each."""

    options: tuple[str, ...]
    reasons: tuple[str, ...]
    peak: Peak


@dataclass(frozen=True, slots=True)
class Misfit:
    """It does not, whatever the engine is told. `peak` is the smallest that could be had; `short` is what runs out."""

    short: Literal["gpu", "host"]
    peak: Peak
    room: Room


def peak(needs: Needs, options: Sequence[str], on_gpu: bool) -> Peak:
    """The most a run with these options takes."""
    drawing = needs.drawing_flash if FLASH in options else needs.drawing
    decoding = needs.decoding_tiled if TILING in options else needs.decoding
    read = needs.text_weights if needs.keeps else 0.0  # weights that are still there when the prompt has been read,
    drawn = needs.diffusion_weights if needs.keeps else 0.0  # and when the picture has been drawn
    if not on_gpu:
        rest = needs.diffusion_weights + needs.vae_weights
        stages = (needs.weights + needs.reading, read + rest + drawing, read + drawn + needs.vae_weights + decoding)
        return Peak(0.0, MARGIN * max(stages) + HOST_BASE)
    text_here = TEXT_ON_CPU not in options
    text = needs.text_weights + needs.reading if text_here else 0.0
    if OFFLOAD in options:
        stages = (text, needs.diffusion_weights + drawing, needs.vae_weights + decoding)
        host = needs.weights + (0.0 if text_here else needs.reading)
    else:
        rest = needs.diffusion_weights + needs.vae_weights
        read = read if text_here else 0.0
        stages = (rest + text, read + rest + drawing, read + drawn + needs.vae_weights + decoding)
        host = 0.0 if text_here else needs.text_weights + needs.reading
    pool = GPU_POOL * max(needs.reading if text_here else 0.0, drawing, decoding)
    return Peak(MARGIN * max(stages) + pool + GPU_BASE, host + HOST_BASE_WITH_GPU)


def fit(needs: Needs, room: Room, given: Sequence[str] = ()) -> Fit | Misfit:
    """The cheapest options with which the model fits; `given` are in force anyway."""
    on_gpu = room.gpu is not None
    tried = [(options, peak(needs, (*given, *options), on_gpu)) for options in _option_sets(given, on_gpu)]
    for options, found in tried:
        if found.within(room):
            return Fit(options, tuple(_reasons(needs, room, given, options)), found)
    if room.gpu is None:
        return Misfit("host", min((found for _, found in tried), key=lambda found: found.host), room)
    on_device = [found for _, found in tried if found.gpu <= room.gpu]
    if on_device:  # what would fit the GPU leaves too much to RAM
        return Misfit("host", min(on_device, key=lambda found: found.host), room)
    return Misfit("gpu", min((found for _, found in tried), key=lambda found: found.gpu), room)


def _option_sets(given: Sequence[str], on_gpu: bool) -> Iterator[tuple[str, ...]]:
    """Every set of options that are not given, the cheapest first. On the CPU there is nothing to move to it."""
    open_to_us = [option for option in OPTIONS[: None if on_gpu else 2] if option not in given]
    sets = [chosen for count in range(len(open_to_us) + 1) for chosen in combinations(open_to_us, count)]
    return iter(sorted(sets, key=lambda chosen: sum(1 << OPTIONS.index(option) for option in chosen)))


def _reasons(needs: Needs, room: Room, given: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    on_gpu = room.gpu is not None
    what = {
        FLASH: "attention in pieces",
        TILING: "the picture decoded in tiles",
        TEXT_ON_CPU: "the text encoder on the CPU",
        OFFLOAD: "weights kept in RAM, each part on the GPU only while it works",
    }
    for option in options:
        without = peak(needs, [*given, *(other for other in options if other != option)], on_gpu)
        wanted, free = (without.gpu, room.gpu) if room.gpu is not None else (without.host, room.host)
        yield f"{option}: {what[option]}; without it {size(wanted)} would be needed, {size(free)} are free"


def size(mib: float) -> str:
    """For people: `850 MiB`, `6.2 GiB`."""
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def largest_size(width: int, height: int, fits: Callable[[int, int], bool], step: int = 64) -> tuple[int, int] | None:
    """The largest size of about the same shape that `fits`, in steps of 64 pixels; None where not even the smallest does."""
    best, low, high = None, 1, max(width, height) // step
    while low <= high:  # needs grow with the size, so halving finds the edge
        middle = (low + high) // 2
        scale = middle * step / max(width, height)
        found = (_stepped(width * scale, step), _stepped(height * scale, step))
        if fits(*found):
            best, low = found, middle + 1
        else:
            high = middle - 1
    return best


def _stepped(pixels: float, step: int) -> int:
    return max(step, int(pixels) // step * step)
