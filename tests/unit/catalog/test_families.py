"""images/families.yaml: what is in it holds together, and a wrong row is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.catalog.families import families
from sdrun.core.model import ROLES
from sdrun.errors import BadConfiguration
from sdrun.launch.fitting import WITH_FLASH
from sdrun.resources import images_dir

GOOD = """
parts:
  diffusion: {prefix: "model.diffusion_model.", also: []}
  clip_l: {prefix: "t.", also: []}
kinds:
- {name: clip_l, title: a CLIP, part: [clip_l], tensor: token.weight, axis: 0, size: 768, mib: 2}
families:
- name: flux
  title: FLUX.1
  has: ["double_blocks.|other."]
  text: {clip_l: [clip_l]}
  text_rule: any
  vae: []
  compute: {pixels: 16, text: 256, width: txt_in.weight, axis: 1, head: 128, linear: 13.4, flash: 16.7}
"""


def read(text: str, folder: Path) -> str:
    path = folder / "families.yaml"
    path.write_text(text)
    families.cache_clear()
    try:
        families(path)
    except BadConfiguration as fault:
        return fault.message
    finally:
        families.cache_clear()
    return ""


def test_the_shipped_file() -> None:
    found = families()
    assert set(found.parts) >= set(ROLES) - {"model"}
    assert {"sd1", "sdxl", "sd3", "flux", "flux2-klein", "chroma", "qwen-image", "z-image", "wan"} <= {
        f.name for f in found.families
    }
    assert {f.name for f in found.families} >= set(WITH_FLASH)
    for family in found.families:
        for part, kinds in family.text.items():
            assert all(part in found.by_kind[kind].parts for kind in kinds), family.name
            assert all(found.by_kind[kind].buffer_mib for kind in kinds), family.name
        for kind in family.vae:
            assert set(found.by_kind[kind].parts) <= {"vae", "tae"}
    assert "families.yaml" in {path.name for path in images_dir().iterdir()}


def test_a_good_file(tmp_path: Path) -> None:
    assert read(GOOD, tmp_path) == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("text_rule: any", "text_rule: some", "families[0].text_rule"),
        ("vae: []", "vae: [kl-4]", "kl-4 is not listed above"),
        ("part: [clip_l]", "part: [vae]", "vae is not listed above"),
        ("text: {clip_l: [clip_l]}", "text: {llm: [clip_l]}", "families[0].text.llm"),
        ("pixels: 16", "pixels: 0", "must be at least 1"),
        ("linear: 13.4", "linear: much", "compute.linear"),
        ("head: 128, ", "", "compute.head: is missing"),
        ("tensor: token.weight, axis: 0, size: 768, ", "", "needs texts, or a tensor"),
        ("axis: 0, size: 768", "axis: 0", "size: is missing"),
        ("- name: flux\n", "- name: flux\n  colour: red\n", "colour"),
        ("parts:", "part:", "parts"),
    ],
)
def test_a_wrong_row_is_told(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in GOOD
    assert says in read(GOOD.replace(old, new), tmp_path)
