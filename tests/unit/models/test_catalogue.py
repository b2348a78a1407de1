"""images/models.yaml and its reader: what ships is sound, and every fault of a bad file is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.catalog.engines import engines
from sdrun.catalog.families import families
from sdrun.catalog.models import models
from sdrun.core.model import Catalogue, Defaults, HubFile, Licence, MadeBy, ModelFile
from sdrun.errors import BadConfiguration

ROW = """\
licences:
  - name: MIT
    commercial: allowed
  - name: Own
    commercial: forbidden
    page: https://example.org/licence
    accept: true
companions:
  - name: text
    repository: them/encoders
    file: sub/text.gguf
    revision: null
    bytes: 50
    sha256: "{text}"
models:
  - name: small
    aliases: [little]
    family: flux
    licence: Own
    output: picture
    engine_args: ["--flow-shift", "3"]
    default_quantisation: q8_0
    companions:
      t5xxl: text
    defaults:
      width: 512
      height: 256
      steps: 4
      cfg_scale: 1
      guidance: 3.5
      sampler: euler
    variants:
      - quantisation: q4_0
        memory_mib: 300
        files:
          diffusion:
            repository: them/small
            file: d.gguf
            revision: "{commit}"
            bytes: 100
            sha256: "{sha256}"
            gated: true
      - quantisation: q8_0
        memory_mib: 500
        files:
          diffusion:
            repository: them/small
            file: e.gguf
            revision: null
            bytes: null
            sha256: null
""".format(sha256="ab" * 32, text="ef" * 32, commit="01" * 20)
MADE = """\
licences:
  - name: MIT
    commercial: allowed
models:
  - name: made
    family: flux
    licence: MIT
    made_by:
      generator: tiny
      seed: 3
    default_quantisation: q4_0
    defaults: {{width: 64, height: 64, steps: 1, cfg_scale: 1, sampler: euler}}
    variants:
      - quantisation: q4_0
        memory_mib: 1
        files:
          model: {{file: d.gguf, bytes: 100, sha256: "{sha256}"}}
""".format(sha256="ab" * 32)


def test_what_ships() -> None:
    samplers = next(iter(engines().values())).samplers
    for name, model in models().items():
        assert model.name == name
        assert model.defaults is not None
        assert model.defaults.sampler in samplers
        assert families().find(model.family) is not None, model.family


def test_the_models_people_ask_for() -> None:
    wanted = "tiny sd1.5 sd-turbo sdxl sdxl-turbo sd3.5-medium flux flux-dev flux2-klein chroma qwen-image z-image-turbo"
    for text in [*wanted.split(), "wan2.1", "wan2.2", "sd1.5-f16", "sd1.5-q8", "sd1.5-q4", "sd-turbo-q8", "sd3.5-medium-q4"]:
        assert text in models(), text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flux", "flux1-schnell:q4_0"),
        ("flux-q4", "flux1-schnell:q4_0"),
        ("FLUX-Q8", "flux1-schnell:q8_0"),
        ("flux1-schnell:q4_0", "flux1-schnell:q4_0"),
        ("flux-dev-q4", "flux1-dev:q4_0"),
        ("qwen-image-q4", "qwen-image:q4_k_m"),
        ("tiny", "tiny:q4_0"),
    ],
)
def test_names_people_type(text: str, name: str) -> None:
    assert models()[text].name == name


@pytest.mark.parametrize(
    "text", ["", "flux-q", "flux-q5", "flux:", ":q4_0", "q4", "flux1-schnell:q4_0:q4_0", "-", "flux-dev-q"]
)
def test_names_that_are_none(text: str) -> None:
    assert text not in models()
    with pytest.raises(KeyError):
        models()[text]


def test_what_is_asked_for_without_a_licence_question_is_free_to_use() -> None:
    for name in ("flux", "flux2-klein", "z-image-turbo", "chroma", "qwen-image"):
        assert (models()[name].licence.commercial, models()[name].gated) == ("allowed", False)
    assert models()["flux-dev"].licence.accept


def test_companions_are_the_same_file_for_all() -> None:
    shared = {models()[name].files["vae"] for name in ("flux-q4", "flux-q8", "flux-dev", "chroma", "z-image-turbo")}
    assert len(shared) == 1


def test_a_good_row(tmp_path: Path) -> None:
    catalogue = read(tmp_path, ROW)
    assert list(catalogue) == ["small:q4_0", "small:q8_0"]
    model = catalogue["little-q4"]
    assert model.made_by is None
    assert model.defaults == Defaults(512, 256, 4, 1.0, "euler", 42, 3.5)
    assert model.licence == Licence("Own", "forbidden", "https://example.org/licence", True)
    diffusion, text = model.files["diffusion"], model.files["t5xxl"]
    assert diffusion == ModelFile("d.gguf", 100, "ab" * 32, HubFile("them/small", "d.gguf", "01" * 20), gated=True)
    assert text == ModelFile("text.gguf", 50, "ef" * 32, HubFile("them/encoders", "sub/text.gguf"))
    assert (model.gated, model.bytes, model.pinned, model.engine_args) == (True, 150, 2, ("--flow-shift", "3"))
    assert catalogue["small"].name == "small:q8_0"
    assert (catalogue["small"].bytes, catalogue["small"].pinned, catalogue["small"].gated) == (None, 1, False)


def test_a_row_that_is_made_here(tmp_path: Path) -> None:
    model = read(tmp_path, MADE)["made"]
    assert model.made_by == MadeBy("tiny", 3)
    assert model.files["model"] == ModelFile("d.gguf", 100, "ab" * 32)


def test_a_row_that_is_shipped(tmp_path: Path) -> None:
    text = MADE.replace("made_by:\n      generator: tiny\n      seed: 3", "shipped: made/weights")
    model = read(tmp_path, text)["made"]
    assert (model.shipped, model.made_by) == ("made/weights", None)
    assert model.files["model"] == ModelFile("d.gguf", 100, "ab" * 32)
    for wrong in ("shipped: ../weights", "shipped: /weights", "shipped: 3"):
        with pytest.raises(BadConfiguration, match="shipped"):
            read(tmp_path, text.replace("shipped: made/weights", wrong))
    with pytest.raises(BadConfiguration, match="has its bytes and sha256 pinned"):
        read(tmp_path, text.replace("bytes: 100", "bytes: null"))


def test_the_model_taken_where_none_is_named(tmp_path: Path) -> None:
    assert read(tmp_path, ROW).default == ""
    assert read(tmp_path, f"default: small\n{ROW}").default == "small"
    with pytest.raises(BadConfiguration, match=r"default: 'flux' is the name of no model here"):
        read(tmp_path, f"default: flux\n{ROW}")
    usual = models()[models().default]
    assert usual.shipped or usual.made_by, "a new user without a network has it"


@pytest.mark.parametrize(
    ("old", "new", "where", "reason"),
    [
        ("name: small", "name: Small Model", "name: Small Model", "models[0].name: must be lower-case letters"),
        ("[little]", "[small]", "aliases:", "small stands here a second time"),
        ("[little]", '["a b"]', "aliases:", "must be lower-case letters"),
        ("licence: Own", "licence: GPL", "licence: GPL", "does not stand under licences"),
        ("commercial: allowed", "commercial: maybe", "commercial: maybe", "must be one of allowed, conditional, forbidden"),
        ("name: Own", "name: MIT", "name: MIT", "a second time"),
        ("t5xxl: text", "t5xxl: tekst", "t5xxl: tekst", "does not stand under companions"),
        ("t5xxl: text", "unet: text", "unet: text", "is not a key here"),
        ("output: picture", "output: sound", "output: sound", "must be one of picture, video"),
        ("memory_mib: 300", "memory_mib: 300.5", "memory_mib: 300.5", "must be a whole number"),
        ("quantisation: q4_0", "quantisation: 4 bit", "quantisation: 4 bit", "must be lower-case letters"),
        ("quantisation: q4_0", "quantisation: q8_0", "quantisation: q8_0", "a second time"),
        ("default_quantisation: q8_0", "default_quantisation: q5", "default_quantisation: q5", "is no quantisation of"),
        ("diffusion:", "llm:", "files:", 'needs a "model" or a "diffusion" file'),
        ("file: d.gguf", "file: ../d.gguf", "file: ../d.gguf", "must be letters"),
        ("file: d.gguf", "file: /d.gguf", "file: /d.gguf", "must be letters"),
        ("repository: them/small", "repository: small", "repository: small", "an owner, a slash and a name"),
        ("0101", "main", "revision: ", "40 hexadecimal digits"),
        ("            bytes: 100", "            bytes: 0", "bytes: 0", "must be at least 1"),
        ("            bytes: 100\n", "", "diffusion:", "bytes: is missing"),
        ("abab", "AB", "sha256: ", "must be 64"),
        ("            gated: true", "            gated: 1", "gated: 1", "true or false"),
        ("width: 512", "width: 500", "width: 500", "must be a multiple of 64"),
        ("cfg_scale: 1", "cfg_scale: yes", "cfg_scale: yes", "must be a number"),
        ("cfg_scale: 1", "cfg_scale: .nan", "cfg_scale: .nan", "must be a number"),
        ("sampler: euler", "sampler: 1", "sampler: 1", "must be a string"),
        ("family: flux", "familly: flux", "familly: flux", "is not a key here"),
        ("    family: flux\n", "", "- name: small", "family: is missing"),
    ],
)
def test_a_bad_row(tmp_path: Path, old: str, new: str, where: str, reason: str) -> None:
    assert old in ROW
    text = ROW.replace(old, new, 1)
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, text)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if where in line]
    told = [fault for fault in caught.value.message.splitlines() if reason in fault]
    assert told
    assert any(f"{tmp_path / 'models.yaml'}:{number}: " in fault for number in lines for fault in told)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("generator: tiny", "generator: huge", "must be one of tiny"),
        ("seed: 3", "seed: -3", "must be at least 0"),
        ("bytes: 100", "bytes: null", "has its bytes and sha256 pinned"),
        ("file: d.gguf", "file: a/d.gguf", "must be a plain file name"),
        ("bytes: 100", "bytes: 100, repository: a/b", "comes from no repository"),
    ],
)
def test_a_bad_row_that_is_made_here(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in MADE
    with pytest.raises(BadConfiguration, match=reason):
        read(tmp_path, MADE.replace(old, new, 1))


def test_every_fault_is_told(tmp_path: Path) -> None:
    bad = ROW.replace("commercial: allowed", "commercial: maybe").replace("bytes: 50", "bytes: -1")
    bad = bad.replace("memory_mib: 300", "memory_mib: 0").replace("repository: them/small", "repository: small")
    bad += ROW[ROW.index("  - name: small") :].replace("small", "other").replace("[little]", "[b, b]")
    with pytest.raises(BadConfiguration) as caught:
        read(
            tmp_path,
            bad.replace("      t5xxl: text\n", "      t5xxl: other\n", 1).replace("    companions:\n", "    kompanions:\n", 1),
        )
    assert [fault.split(": ")[1] for fault in caught.value.message.splitlines()] == [
        "licences[0].commercial",
        "companions[0].bytes",
        "models[0].kompanions",
        "models[0].variants[0].memory_mib",
        "models[0].variants[1].files.diffusion.repository",
        "models[1].aliases",
    ]


def test_a_name_twice_and_a_file_twice(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="small stands here a second time"):
        read(tmp_path, ROW + ROW[ROW.index("  - name: small") :])
    with pytest.raises(BadConfiguration, match="two roles have the same file"):
        read(tmp_path, ROW.replace("      t5xxl: text\n", "      t5xxl: text\n      llm: text\n"))


@pytest.mark.parametrize("text", ["", "models: []\n", "models: 3\n", "- models\n", "models:\n  - 3\n"])
def test_no_catalogue_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfiguration):
        read(tmp_path, text)


def read(folder: Path, text: str) -> Catalogue:
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    models.cache_clear()
    return models(path)
