"""Too little memory: a smaller quantisation where only the family was named, else a refusal that names what would fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

import pytest
from fabricated import shapes
from fabricated.sparse import Shape, fitting, stored

from sdrun.catalog.families import families
from sdrun.catalog.models import models
from sdrun.core.fileset import FileSet
from sdrun.core.fit import FLASH, OFFLOAD, TILING, Room
from sdrun.core.header import Header, TensorInfo
from sdrun.core.model import Catalogue, Model, ModelFile, ModelFiles, Row
from sdrun.errors import NotEnoughMemory
from sdrun.launch.fitting import NOTHING_NEEDED, affordable, fit_model, named_files
from sdrun.launch.request import Request
from sdrun.models.family import file_set

GIB = 1 << 30
BASE = next(iter(models().values()))


def header(entries: Iterable[tuple[str, Shape]], kind: str) -> Header:
    types = ((name, fitting(kind, shape), shape) for name, shape in entries)
    tensors = tuple(TensorInfo(name, type, tuple(reversed(shape)), stored(type, shape)) for name, type, shape in types)
    return Header("gguf", sum(tensor.bytes for tensor in tensors), tensors)


def variant(quantisation: str, gib: float) -> Model:
    files = {"diffusion": ModelFile(f"{quantisation}.gguf", int(gib * GIB), None), "vae": ModelFile("vae", GIB // 3, None)}
    return replace(BASE, name=f"flux:{quantisation}", quantisation=quantisation, files=MappingProxyType(files))


VARIANTS = {model.name: model for model in (variant("q8_0", 11.8), variant("q4_0", 6.3), variant("q2_k", 3.7))}
CATALOGUE = Catalogue({"flux": Row("flux", ("flux1",), "q8_0", ("q8_0", "q4_0", "q2_k"))}, VARIANTS)


@pytest.fixture(scope="module")
def files() -> FileSet:
    """FLUX.1 at its own size, Q8_0, with CLIP-L."""
    headers = {"diffusion": header(shapes.flux(), "q8_0"), "clip_l": header(shapes.clip(), "f16")}
    return file_set({**headers, "vae": header(shapes.vae(), "f16")}, families(), "flux")


def model(name: str = "flux:q8_0") -> ModelFiles:
    return ModelFiles(name, MappingProxyType({}), None, model=VARIANTS[name])


def test_there_is_room(files: FileSet) -> None:
    request = Request("flux", "a fox", width=1024, height=1024)
    assert fit_model(request, model(), files, Room(40_000, 64_000), CATALOGUE) == NOTHING_NEEDED
    assert fit_model(request, model(), files, None, CATALOGUE) == NOTHING_NEEDED
    assert fit_model(request, model(), replace(files, family=None), Room(10, 10), CATALOGUE) == NOTHING_NEEDED


def test_options_and_why(files: FileSet) -> None:
    found = fit_model(Request("flux", "a fox", width=1024, height=1024), model(), files, Room(14_200, 64_000), CATALOGUE)
    assert set(found.options) >= {FLASH, TILING}
    assert found.options == tuple(note.split(":")[0] for note in found.notes)
    passed = Request("flux", "a fox", width=1024, height=1024, engine_args=("--fa", TILING))
    assert not {FLASH, TILING} & set(fit_model(passed, model(), files, Room(14_200, 64_000), CATALOGUE).options)


def test_chroma_goes_without_its_mask_under_flash_attention(files: FileSet) -> None:
    chroma = replace(files, family=families().find("chroma"), parts={**files.parts, "t5xxl": files.parts["clip_l"]})
    found = fit_model(Request("x", "a fox", width=1024, height=1024), model(), chroma, Room(14_200, 64_000), None)
    assert found.options[-1] == "--chroma-disable-dit-mask"


def test_a_family_gets_what_fits(files: FileSet) -> None:
    found = fit_model(Request("flux", "a fox", width=512, height=512), model(), files, Room(8_500, 64_000), CATALOGUE)
    assert found.instead == "flux:q4_0"
    assert "taking flux:q4_0" in found.notes[0]


def test_a_named_quantisation_is_refused_and_what_fits_is_named(files: FileSet) -> None:
    request = Request("flux:q8_0", "a fox", width=512, height=512)
    with pytest.raises(NotEnoughMemory) as caught:
        fit_model(request, model(), files, Room(8_500, 64_000), CATALOGUE)
    assert (caught.value.id, caught.value.exit_code) == ("out-of-gpu-memory", 10)
    assert "FLUX.1 at 512x512 needs" in caught.value.message
    assert "--model flux:q4_0" in caught.value.remedy
    with pytest.raises(NotEnoughMemory) as caught:
        fit_model(replace(request, width=8192, height=4096), model(), files, Room(24_000, 64_000), None)
    assert "a smaller size: -W " in caught.value.remedy
    with pytest.raises(NotEnoughMemory) as caught:
        fit_model(request, model(), files, Room(None, 4_000), None)
    assert caught.value.id == "out-of-memory"
    assert caught.value.remedy.startswith("Use a smaller model")


@pytest.mark.parametrize(
    ("name", "room", "taken"),
    [
        ("flux", Room(24_000, 64_000), "flux"),
        ("flux", Room(8_000, 64_000), "flux:q4_0"),
        ("flux1", Room(5_000, 64_000), "flux:q2_k"),
        ("flux", Room(1_000, 64_000), "flux"),  # nothing fits: the headers will say so
        ("flux:q8_0", Room(8_000, 64_000), "flux:q8_0"),
        ("flux", Room(None, 5_000), "flux:q2_k"),
        ("flux", None, "flux"),
        ("./own.gguf", Room(10, 10), "./own.gguf"),
    ],
)
def test_what_is_fetched(name: str, room: Room | None, taken: str) -> None:
    said: list[str] = []
    assert affordable(name, CATALOGUE, room, said.append) == taken
    assert bool(said) == (taken != name)


def test_parts_named_by_engine_arguments() -> None:
    found = named_files(("--vae", "/a/vae.gguf", "--steps", "3", "--taesd", "t.gguf", OFFLOAD))
    assert {role: str(path) for role, path in found.items()} == {"vae": "/a/vae.gguf", "tae": "t.gguf"}
