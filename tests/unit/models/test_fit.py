"""Needs from headers against what the engine said, and the choice of options for every amount of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from fabricated import shapes
from fabricated.sparse import Shape, fitting, stored
from hypothesis import given
from hypothesis import strategies as st

from sdrun.catalog.families import families
from sdrun.core.fileset import FileSet
from sdrun.core.fit import FLASH, OFFLOAD, OPTIONS, TEXT_ON_CPU, TILING, Fit, Misfit, Needs, Room, fit, largest_size, peak, size
from sdrun.core.header import Header, TensorInfo
from sdrun.core.needs import needs
from sdrun.models.family import file_set
from sdrun.probe.memory import free_host_mib, parse_free, parse_meminfo

MAKERS = {
    "flux": (lambda: shapes.flux(3072, 1, 1), "q4_0"),
    "flux-128": (lambda: shapes.flux(128, 1, 1), "q4_0"),
    "klein": (lambda: shapes.klein(3072, 2, 2), "q4_0"),
    "z-image": (shapes.z_image, "q4_0"),
    "sd3": (shapes.sd3, "q4_0"),
    "qwen-image": (lambda: shapes.qwen_image(2), "q4_0"),
    "sd1": (shapes.sd1, "f16"),
    "sdxl": (shapes.sdxl, "q8_0"),
    "clip_l": (shapes.clip, "q4_0"),
    "clip_g": (shapes.clip_g, "q4_0"),
    "t5": (shapes.t5, "q4_0"),
    "qwen3": (shapes.llm, "q4_0"),
    "qwen2.5": (lambda: shapes.llm("qwen2.5", 3584, 2, 18944, 152064), "q4_0"),
    "vae4": (lambda: shapes.vae(4, quant=True), "f16"),
    "vae16": (shapes.vae, "f16"),
    "vae32": (lambda: shapes.vae(32, quant=True), "f16"),
    "video": (shapes.video_vae, "f16"),
}


def header(entries: Iterable[tuple[str, Shape]], kind: str) -> Header:
    types = ((name, fitting(kind, shape), shape) for name, shape in entries)
    tensors = tuple(TensorInfo(name, type, tuple(reversed(shape)), stored(type, shape)) for name, type, shape in types)
    return Header("gguf", sum(tensor.bytes for tensor in tensors), tensors)


def loaded(files: Mapping[str, str]) -> FileSet:
    return file_set({role: header(MAKERS[made][0](), MAKERS[made][1]) for role, made in files.items()}, families(), "it")


FLUX = {"diffusion": "flux", "clip_l": "clip_l", "vae": "vae16"}
SD1, SDXL = {"model": "sd1"}, {"model": "sdxl"}
Z_IMAGE = {"diffusion": "z-image", "llm": "qwen3", "vae": "vae16"}
SD3 = {"diffusion": "sd3", "clip_l": "clip_l", "clip_g": "clip_g", "vae": "vae16"}
KLEIN = {"diffusion": "klein", "llm": "qwen3", "vae": "vae32"}
QWEN = {"diffusion": "qwen-image", "llm": "qwen2.5", "vae": "video"}

# What the engine at 90e87bc said on the CPU with exactly these shapes (its "compute buffer size", in MiB; with -v): drawing
# without and with --diffusion-fa.
DRAWING = [
    (FLUX, 256, 103.57, 85.57),
    (FLUX, 512, 341.5, 230.5),
    (FLUX, 1024, 2361.25, 780.25),
    (SD1, 256, 49.57, 30.94),
    (SD1, 512, 559.9, 123.07),
    (SD1, 768, 2690.33, 276.62),
    (SDXL, 512, 132.05, 123.46),
    (SDXL, 1024, 830.86, 491.99),
    (Z_IMAGE, 512, 238.21, 173.32),
    (Z_IMAGE, 1024, 2379.46, 690.07),
    (SD3, 512, 181.64, 86.66),
    (SD3, 1024, 1834.11, 282.84),
    (KLEIN, 512, 491.0, 329.0),
    (KLEIN, 1024, 2739.5, 1065.5),
    (QWEN, 512, 183.07, 153.1),
    (QWEN, 1024, 1882.69, 640.82),
]
# Of the decoder, in one piece and tiled; and of the weights: "params backend buffer size".
DECODING = [
    (FLUX, 256, 416.06, 416.06),
    (FLUX, 1024, 6657.0, 416.06),
    (KLEIN, 512, 1664.5, 1664.5),
    (QWEN, 256, 469.19, 469.19),
]
WEIGHTS = [
    (FLUX, 66.61, 287.66, 94.57),
    (SD1, 235.06, 1640.25, 94.47),
    (Z_IMAGE, 2158.46, 3307.7, 94.57),
    (SD3, 66.61 + 380.09, 2119.58, 94.57),
    (KLEIN, 2158.46, 499.51, 94.72),
    (QWEN, 542.49, 387.02, 139.84),
]


@pytest.mark.parametrize(("files", "side", "plain", "flash"), DRAWING)
def test_drawing_is_an_upper_bound(files: Mapping[str, str], side: int, plain: float, flash: float) -> None:
    wanted = needs(loaded(files), side, side)
    assert wanted is not None
    assert plain * 0.999 <= wanted.drawing <= plain * 1.25
    assert flash * 0.999 <= wanted.drawing_flash <= flash * 1.25


@pytest.mark.parametrize(("files", "side", "whole", "tiled"), DECODING)
def test_decoding(files: Mapping[str, str], side: int, whole: float, tiled: float) -> None:
    wanted = needs(loaded(files), side, side)
    assert wanted is not None
    assert (wanted.decoding, wanted.decoding_tiled) == (pytest.approx(whole, rel=0.01), pytest.approx(tiled, rel=0.01))


@pytest.mark.parametrize(("files", "text", "diffusion", "vae"), WEIGHTS)
def test_weights(files: Mapping[str, str], text: float, diffusion: float, vae: float) -> None:
    wanted = needs(loaded(files), 512, 512)
    assert wanted is not None
    assert wanted.text_weights == pytest.approx(text, rel=0.005)
    assert wanted.diffusion_weights == pytest.approx(diffusion, rel=0.005)
    assert wanted.vae_weights == pytest.approx(vae, rel=0.005)


def test_other_types_and_halves() -> None:
    float8 = [TensorInfo("text_model.embeddings.token_embedding.weight", "bf16", (768, 49408), 768 * 49408 * 2)]
    float8 += [TensorInfo("a.weight", "f8_e4m3", (768, 768), 768 * 768)]
    headers = {"diffusion": header(shapes.flux(128, 1, 1), "q4_0"), "vae": header(shapes.vae(encoder=True), "f16")}
    found = file_set({**headers, "clip_l": Header("safetensors", 1, tuple(float8))}, families(), "it")
    wanted, encoding = needs(found, 512, 512), needs(found, 512, 512, encodes=True)
    assert wanted is not None
    assert encoding is not None
    assert wanted.text_weights == (768 * 49408 * 4 + 768 * 768 * 2) / 2**20  # words become f32, 8-bit floats f16
    assert encoding.vae_weights > wanted.vae_weights


def test_what_is_not_known_is_not_guessed() -> None:
    found = loaded(FLUX)
    assert needs(replace(found, family=None), 512, 512) is None
    assert needs(replace(found, parts={**found.parts, "diffusion": loaded(SD1).parts["diffusion"]}), 512, 512) is None


FULL = Needs(2700, 6500, 95, 200, 2400, 850, 6657, 416)  # FLUX.1 at 1024 x 1024, Q4_0


@pytest.mark.parametrize(
    ("gpu", "options"),
    [
        (24_000, ()),
        (11_000, ()),
        (10_700, (TILING,)),
        (10_500, (FLASH, TILING)),
        (10_200, (FLASH, TEXT_ON_CPU)),
        (8_400, (FLASH, TILING, TEXT_ON_CPU)),
        (8_300, (FLASH, TILING, OFFLOAD)),
    ],
)
def test_the_cheapest_options_are_taken(gpu: float, options: tuple[str, ...]) -> None:
    answer = fit(FULL, Room(gpu, 64_000))
    assert isinstance(answer, Fit)
    assert answer.options == options
    assert [reason.split(":")[0] for reason in answer.reasons] == list(options)


def test_given_options_are_not_repeated() -> None:
    answer = fit(FULL, Room(8_400, 64_000), (FLASH, TILING))
    assert isinstance(answer, Fit)
    assert answer.options == (TEXT_ON_CPU,)


def test_what_runs_out_is_named() -> None:
    on_device, in_ram, on_cpu = fit(FULL, Room(4_000, 64_000)), fit(FULL, Room(8_300, 2_000)), fit(FULL, Room(None, 4_000))
    assert [answer.short for answer in (on_device, in_ram, on_cpu) if isinstance(answer, Misfit)] == ["gpu", "host", "host"]


MEMORY = st.floats(100, 60_000)
NEEDS = st.builds(Needs, *[st.floats(0, 20_000)] * 8)


@given(NEEDS, st.none() | MEMORY, MEMORY, st.sets(st.sampled_from(OPTIONS)))
def test_a_fit_fits_and_a_misfit_has_no_way_out(wanted: Needs, gpu: float | None, host: float, given_options: set[str]) -> None:
    room, given_ones = Room(gpu, host), tuple(sorted(given_options))
    answer = fit(wanted, room, given_ones)
    everything = [(*given_ones, *chosen) for chosen in [(), (FLASH,), (TILING,), (FLASH, TILING), OPTIONS]]
    if isinstance(answer, Fit):
        assert peak(wanted, (*given_ones, *answer.options), gpu is not None).within(room)
        assert not set(answer.options) & given_options
        assert gpu is not None or not {TEXT_ON_CPU, OFFLOAD} & set(answer.options)
    else:
        assert not any(peak(wanted, chosen, gpu is not None).within(room) for chosen in everything)
    more = fit(wanted, Room(None if gpu is None else gpu + 5_000, host + 5_000), given_ones)
    assert isinstance(more, Fit) or isinstance(answer, Misfit)


@pytest.mark.parametrize("options", [(), (TEXT_ON_CPU,), (OFFLOAD,), (OFFLOAD, TEXT_ON_CPU)])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_server_keeps_every_part(options: tuple[str, ...], on_gpu: bool) -> None:
    """Text 100, diffusion 200, autoencoder 50; each stage's buffer decides once."""
    where = "gpu" if on_gpu else "host"
    base = Needs(100, 200, 50, 10, 10, 10, 10, 10)
    for stage, kept in (("reading", 350), ("drawing", 350), ("decoding", 350)):
        once = replace(base, **{stage: 1000.0})
        server = replace(once, keeps=True)
        freed = {"reading": 350, "drawing": 250, "decoding": 50}[stage]
        more = getattr(peak(server, options, on_gpu), where) - getattr(peak(once, options, on_gpu), where)
        if OFFLOAD in options and on_gpu:
            assert more == 0  # each part is on the GPU only while it works, as without a server
        elif TEXT_ON_CPU in options and on_gpu:
            assert more == pytest.approx(1.03 * {"reading": 0, "drawing": 0, "decoding": 200}[stage])
        else:
            assert more == pytest.approx(1.03 * (kept - freed))


def test_the_largest_size_that_fits() -> None:
    assert largest_size(2048, 1024, lambda width, height: width * height <= 1024 * 512) == (1024, 512)
    assert largest_size(2048, 1024, lambda width, height: False) is None
    assert largest_size(100, 100, lambda width, height: True) == (64, 64)
    assert (size(850.2), size(6348)) == ("850 MiB", "6.2 GiB")


def test_free_memory_is_read() -> None:
    assert parse_free("GPU-1, 80991\nGPU-2, [N/A]\nnonsense\nMIG 1, 2, 3\n") == {"GPU-1": 80991}
    assert parse_meminfo("MemTotal: 4096 kB\nMemAvailable:    2048 kB\nSwapFree: 1024 kB\nMemFree:\n") == 3
    assert parse_meminfo("MemTotal: 4096 kB\nMemAvailable: many\n") is None
    assert (free_host_mib() or 0) > 100
