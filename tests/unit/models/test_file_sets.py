"""Which files make a model: accepted, refused with the missing part named, or left to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from fabricated import shapes
from fabricated.sparse import Shape, fitting, stored, write

from sdrun.catalog.families import families
from sdrun.core.header import Header, TensorInfo
from sdrun.core.model import ModelFiles
from sdrun.errors import UsageProblem, VerificationFailed
from sdrun.models import tiny
from sdrun.models.family import check_file_set, file_set

LORA = [("a.lora_down.weight", (4, 8)), ("a.lora_up.weight", (8, 4))]
UNKNOWN = [("something.else.weight", (8, 8))]


def header(entries: Iterable[tuple[str, Shape]], kind: str = "q4_0") -> Header:
    tensors = tuple(
        TensorInfo(name, fitting(kind, shape), tuple(reversed(shape)), stored(fitting(kind, shape), shape))
        for name, shape in entries
    )
    return Header("gguf", sum(tensor.bytes for tensor in tensors), tensors)


FLUX, CLIP_L, CLIP_G, T5, UMT5 = (
    header(entries)
    for entries in (shapes.flux(128, 1, 1), shapes.clip(), shapes.clip_g(), shapes.t5(layers=1), shapes.t5(256384, layers=1))
)
VAE4, VAE16, VAE32 = header(shapes.vae(4, 32, quant=True)), header(shapes.vae(16, 32)), header(shapes.vae(32, 32, quant=True))
SD1, SDXL, UNET = header(shapes.sd1(), "f16"), header(shapes.sdxl(), "f16"), header(shapes.unet(), "f16")
KLEIN, Z_IMAGE = header(shapes.klein(384, 1, 1, 3 * 64)), header(shapes.z_image(1, 1))
QWEN3, QWEN25 = header(shapes.llm("qwen3", 2560, 1)), header(shapes.llm("qwen2.5", 2560, 1))
QWEN3_64, MISTRAL = header(shapes.llm("qwen3", 64, 1, 64)), header(shapes.llm("mistral", 64, 1, 64, 131072))


def judged(files: Mapping[str, Header], *, encodes: bool = False) -> str:
    """The family, or the error's id and sentence."""
    try:
        found = file_set(files, families(), "it", encodes=encodes)
    except UsageProblem as error:
        return f"{error.id}: {error.message}"
    return found.family.name if found.family else "none"


@pytest.mark.parametrize(
    ("files", "family"),
    [
        ({"diffusion": FLUX, "clip_l": CLIP_L, "t5xxl": T5, "vae": VAE16}, "flux"),
        ({"diffusion": FLUX, "clip_l": CLIP_L, "vae": VAE16}, "flux"),
        ({"diffusion": FLUX, "t5xxl": T5, "vae": VAE16}, "flux"),
        (
            {"model": FLUX, "t5xxl": T5, "vae": VAE16},
            "none",
        ),  # bare names are no all-in-one file; the engine knows them as little
        ({"model": SD1}, "sd1"),
        ({"model": SD1, "vae": VAE4}, "sd1"),
        ({"model": SDXL}, "sdxl"),
        ({"diffusion": KLEIN, "llm": QWEN3_64, "vae": VAE32}, "flux2-klein"),
        ({"diffusion": Z_IMAGE, "llm": QWEN3, "vae": VAE16}, "z-image"),
        ({"diffusion": header(UNKNOWN), "vae": VAE16}, "none"),
    ],
)
def test_accepted(files: Mapping[str, Header], family: str) -> None:
    assert judged(files) == family


@pytest.mark.parametrize(
    ("files", "id", "says"),
    [
        (
            {"diffusion": FLUX, "vae": VAE16},
            "incomplete",
            "FLUX.1 needs a text encoder; the file for clip_l or t5xxl is missing",
        ),
        ({"diffusion": FLUX, "clip_l": CLIP_L}, "incomplete", "the file for vae is missing"),
        ({"diffusion": FLUX, "clip_l": CLIP_G, "vae": VAE16}, "mismatched", "clip_l is a CLIP-G text encoder"),
        ({"diffusion": FLUX, "t5xxl": UMT5, "vae": VAE16}, "mismatched", "t5xxl is a UMT5 text encoder; FLUX.1 needs a T5-XXL"),
        ({"diffusion": FLUX, "t5xxl": T5, "vae": VAE4}, "mismatched", "autoencoder of Stable Diffusion 1 to XL"),
        ({"diffusion": FLUX, "t5xxl": T5, "vae": CLIP_L}, "mismatched", "vae is a CLIP-L text encoder"),
        ({"diffusion": Z_IMAGE, "llm": QWEN25, "vae": VAE16}, "mismatched", "Z-Image needs a Qwen3 text encoder"),
        ({"diffusion": Z_IMAGE, "vae": VAE16}, "incomplete", "the file for llm is missing"),
        (
            {"diffusion": Z_IMAGE, "llm": QWEN3_64, "vae": VAE16},
            "mismatched",
            "llm is 64 wide; this Z-Image model wants one of 2560",
        ),
        ({"diffusion": KLEIN, "llm": MISTRAL, "vae": VAE32}, "mismatched", "llm is a Mistral"),
        ({"diffusion": KLEIN, "llm": QWEN3, "vae": VAE32}, "mismatched", "2560 wide; this FLUX.2 klein model wants one of 64"),
        ({"diffusion": KLEIN, "llm": QWEN3_64, "vae": VAE16}, "mismatched", "FLUX.2 klein needs the autoencoder of FLUX.2"),
        ({"diffusion": UNET, "clip_l": CLIP_L, "vae": VAE4}, "incomplete", "only as one file"),
        ({"model": CLIP_L}, "mismatched", "not a diffusion model"),
        ({"diffusion": VAE16}, "mismatched", "not a diffusion model"),
        ({"model": header(LORA)}, "mismatched", "a LoRA, not a diffusion model"),
    ],
)
def test_refused(files: Mapping[str, Header], id: str, says: str) -> None:
    answer = judged(files)
    assert answer.startswith(f"model-files-{id}: ")
    assert says in answer


def test_the_remedy_names_the_part() -> None:
    with pytest.raises(UsageProblem) as caught:
        file_set({"diffusion": FLUX, "vae": VAE16}, families(), "it")
    assert "clip_l=clip_l.safetensors,t5xxl=t5xxl.gguf" in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_first_picture_needs_the_encoder() -> None:
    files = {"diffusion": FLUX, "t5xxl": T5, "vae": VAE16}
    assert "a first picture needs" in judged(files, encodes=True)
    assert judged({**files, "vae": header(shapes.vae(16, 32, encoder=True))}, encodes=True) == "flux"


def test_what_is_worth_telling() -> None:
    found = file_set({"diffusion": FLUX, "clip_l": CLIP_L, "vae": VAE16, "llm": QWEN3}, families(), "it")
    assert found.notes == (
        "FLUX.1 does not use the file given as llm",
        "no t5xxl text encoder is given: the picture will follow the prompt less closely",
    )
    assert found.quantisation == "q4_0"


def test_an_all_in_one_file_is_divided() -> None:
    found = file_set({"model": SDXL}, families(), "it")
    assert {name: part.kind.name if part.kind else None for name, part in found.parts.items()} == {
        "diffusion": None,
        "clip_l": "clip_l",
        "clip_g": "clip_g",
        "vae": "kl-4",
    }


def test_files_are_read(tmp_path: Path) -> None:
    paths = tiny.write(tmp_path)
    found = check_file_set(ModelFiles("tiny", MappingProxyType(dict(paths)), None))
    assert found.family is not None
    assert found.family.name == "ovis-image"
    assert found.bytes == sum(path.stat().st_size for path in paths.values())
    broken = write(tmp_path / "cut.gguf", shapes.flux(128, 1, 1))
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(VerificationFailed, match="not a whole model file"):
        check_file_set(ModelFiles("cut", MappingProxyType({"diffusion": broken}), None))
    with pytest.raises(UsageProblem, match="cannot be read"):
        check_file_set(ModelFiles("gone", MappingProxyType({"diffusion": tmp_path / "gone"}), None))


def test_a_checkpoint_is_left_to_the_engine() -> None:
    found = file_set({"model": Header("checkpoint", 5)}, families(), "it")
    assert found.family is None
    assert "PyTorch checkpoint" in found.notes[0]
