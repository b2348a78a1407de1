"""images/settings.yaml: what is in it holds together and is backed by what was measured, and a wrong row is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.families import families
from sdrun.catalog.settings import settings
from sdrun.core.setting import Setting
from sdrun.errors import BadConfiguration
from sdrun.launch.fitting import WITH_FLASH

RESULTS = Path(__file__).parents[3] / "bench" / "results"
GOOD = """
settings:
- name: flash
  title: attention in pieces
  options: ["--diffusion-fa"]
  implied_by: ["--fa"]
  families: [flux]
  evidence:
  - {capability: "9.0", how: measured, faster: {least: 1.1, most: 1.2}, apart: 0.2, source: here, result: speed.json}
  - {capability: "8.9", how: documented, source: there}
"""


def read(text: str, folder: Path) -> str:
    path = folder / "settings.yaml"
    path.write_text(text)
    settings.cache_clear()
    try:
        settings(path)
    except BadConfiguration as fault:
        return fault.message
    finally:
        settings.cache_clear()
    return ""


def test_the_shipped_file() -> None:
    known = set(load_cuda_facts().capabilities)
    for setting in settings():
        assert set(setting.evidence) <= known
        assert not {*setting.options, *setting.implied_by} & {"--chroma-disable-dit-mask"}
        for name in setting.families:
            family = families().find(name)
            assert family is not None
            if "--diffusion-fa" in setting.options:  # the kernels that were measured are those of heads of 128
                assert family.compute is not None
                assert family.compute.head == 128
                assert name not in WITH_FLASH, "with the mask that others need it draws other pictures"
        for evidence in setting.evidence.values():
            assert evidence.apart is None or evidence.apart < 1, "so much is another picture"
            assert evidence.how == "documented" or any(name in evidence.source for name in engines())


def pairs(setting: Setting, rows: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """The gain of each type and size, and how far its picture is from the one without."""
    engine = rows[0]["engine"]
    alone = {row["options"]: {} for row in rows}
    for row in rows:
        if row["engine"] == engine and not row["env"] and "steps_per_s" in row:
            alone[row["options"]][row["type"], row["size"], row["steps"]] = row
    for case, row in alone[" ".join(setting.options)].items():
        if case in alone[""]:
            yield row["steps_per_s"]["median"] / alone[""][case]["steps_per_s"]["median"], row["difference_mean"]


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_the_figures_are_those_that_were_measured(setting: Setting) -> None:
    for evidence in setting.evidence.values():
        if evidence.result is None:
            continue
        document = json.loads((RESULTS / evidence.result).read_text(encoding="utf-8"))
        found = list(pairs(setting, document["figures"]["rows"]))
        gains = sorted(round(gain, 2) for gain, _ in found)
        assert evidence.faster == (gains[0], gains[-1])
        assert evidence.apart == max(round(apart, 2) for _, apart in found)


def test_a_good_file(tmp_path: Path) -> None:
    assert read(GOOD, tmp_path) == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("families: [flux]", "families: [fluxx]", "fluxx is not in families.yaml"),
        ('options: ["--diffusion-fa"]', "options: []", "is empty"),
        ('options: ["--diffusion-fa"]', "options: [fast]", "fast is no option"),
        ("how: documented", "how: heard", "must be one of measured, documented"),
        ('"8.9"', '"9.0"', "9.0 stands here a second time"),
        ('"8.9"', "8.9", "must be a string"),
        ("least: 1.1", "least: 0.9", "what is not faster is no setting"),
        ("least: 1.1", "least: 1.3", "not above `most`"),
        ("most: 1.2", "most: .inf", "what is not faster is no setting"),
        ("apart: 0.2", "apart: .nan", "must be between 0 and 255"),
        ("apart: 0.2", "apart: -0.1", "must be between 0 and 255"),
        ('implied_by: ["--fa"]', "implied_by: [fa]", "implied_by: fa is no option"),
        (" apart: 0.2,", "", "apart: is missing"),
        (" faster: {least: 1.1, most: 1.2},", "", "faster: is missing"),
        ("how: documented,", "how: documented, apart: 0.1,", "must be left out"),
        ("  title:", "  titel: x\n  title:", "titel is not a key here"),
        ("- name: flash", "- name: flash\n  name: flash", "stands here a second time"),
    ],
)
def test_a_wrong_row_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in GOOD
    message = read(GOOD.replace(old, new, 1), tmp_path)
    assert told.removeprefix("titel ") in message
    assert "settings.yaml" in message


def test_a_second_setting_of_a_name_is_told(tmp_path: Path) -> None:
    assert "flash stands here a second time" in read(GOOD + GOOD.removeprefix("\nsettings:\n"), tmp_path)
