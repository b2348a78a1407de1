"""images/engine_options.yaml: what is in it holds together, the engine knows it all, and a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.catalog.engine_options import engine_options
from sdrun.core.model import ROLES
from sdrun.errors import BadConfiguration
from sdrun.resources import images_dir

SHIPPED = (images_dir() / "engine_options.yaml").read_text(encoding="utf-8")


def test_the_shipped_file() -> None:
    options = engine_options()
    assert tuple(options.roles) == ROLES
    assert {options.files[option] for option in options.files} == set(ROLES)
    assert options.reads >= set(options.files)
    for program in ("cli", "server"):
        assert "-m" in options.reserved[program], "the model is chosen by sdrun's own --model"
        own = {word for word in options.reserved[program].values() if word}
        assert all(word.startswith("--") for word in own)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  vae: --vae\n", "", "has no option for vae"),
        ("  --taesd: tae", "  --taesd: tea", "tea is not a role"),
        ("  - --mask", "  - mask", "mask is no option"),
        ("reads:", "raeds: []\nreads:", "raeds: is not a key here"),
        ("  server:", "  servant: {}\n  server:", "servant: is not a key here"),
        ('    -M: ""', "    -M: off", "reserved.cli.-M"),
    ],
)
def test_a_wrong_file_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in SHIPPED
    path = tmp_path / "engine_options.yaml"
    path.write_text(SHIPPED.replace(old, new, 1))
    with pytest.raises(BadConfiguration) as caught:
        engine_options(path)
    assert told in caught.value.message
