"""What is left out of the engine's GPU code: no model of the catalogue needs it, and everything that should say so does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.build.local import in_full, with_local_source
from sdrun.catalog.engines import engines
from sdrun.catalog.families import families
from sdrun.catalog.targets import targets
from sdrun.core.labels import image_labels
from sdrun.core.target import Target
from sdrun.render.dockerfile import render
from sdrun.resources import images_dir

ENGINE = engines()["sdcpp-90e87bc"]
TILE = "- ggml/src/ggml-cuda/template-instances/fattn-tile-instance-dkq72-dv72.cu"
HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def row(name: str) -> Target:
    return next(row for row in targets().rows if row.name == name)


def kept(patch: str, file: str) -> list[str]:
    """The lines of a file that are there after its part of a patch, as far as the patch shows them."""
    part = patch.partition(f"+++ b/{file}\n")[2].partition("\n--- a/")[0]
    return [line[1:] for line in part.splitlines() if line[:1] in (" ", "+")]


def test_every_head_of_a_known_family_keeps_its_kernel() -> None:
    (attention,) = (part for part in ENGINE.left_out if part.part == "attention")
    lines = kept(attention.patch, "ggml/src/ggml-cuda/fattn.cu")
    heads = {int(found[1]) for line in lines if (found := re.fullmatch(r" +case +(\d+):", line))}
    assert heads == {40, 64, 80, 128}
    assert {family.compute.head for family in families().families if family.compute} <= heads


def test_every_type_of_weights_keeps_its_kernels() -> None:
    """What is not multiplied as it is goes through F16, whose range a language model can exceed."""
    assert [part.part for part in ENGINE.left_out] == ["attention", "matmul-widths", "matmul-experts", "loading-pauses"]
    for part in ENGINE.left_out:
        assert not any("mmq-instance" in name for name in part.files)
        assert "b/ggml/src/ggml-cuda/mmq.cu\n" not in part.patch


@pytest.mark.parametrize("part", ENGINE.left_out, ids=lambda part: part.part)
def test_patches_are_whole_and_say_why(part: object) -> None:
    """Hunks as long as they say: GNU patch would end the build, here it is told within a second."""
    text = getattr(part, "patch", "")
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if found := HUNK.match(line):
            old, new = int(found[1] or 1), int(found[2] or 1)
            for follower in lines[i + 1 :]:
                if old <= 0 and new <= 0:
                    break
                old -= follower[:1] in (" ", "-", "")
                new -= follower[:1] in (" ", "+", "")
            assert (old, new) == (0, 0)
    assert {found[1] for found in re.finditer(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)} <= {
        found[1] for found in re.finditer(r"^--- a/(\S+)", text, re.MULTILINE)
    }
    assert len(getattr(part, "reason", "")) > 60
    assert len(getattr(part, "instead", "")) > 60


def test_a_patch_that_does_not_fit_ends_the_build(tmp_path: Path) -> None:
    """The command of the rendered Dockerfile, on a source that is another: it fails, and says so in words the build knows."""
    from sdrun.catalog.buildfailures import diagnose_build

    program = shutil.which("patch")
    if program is None:
        pytest.skip("patch is not installed; in a build it is a package of the toolchain stage")
    (widths,) = (part for part in ENGINE.left_out if part.part == "matmul-widths")
    source = tmp_path / "ggml" / "src" / "ggml-cuda" / "mmq.cuh"
    source.parent.mkdir(parents=True)
    source.write_text("int other;\n" * 400)
    (tmp_path / "x.patch").write_text(widths.patch)
    text = render(row("cu124-sm89"), ENGINE, targets().bases["debian-trixie"])["Dockerfile"]
    (command,) = re.findall(r"^ +(patch .*matmul-widths.patch); \\$", text, re.MULTILINE)
    argv = (
        command.replace("/src", str(tmp_path), 1)
        .replace("/run/left-out/matmul-widths.patch", str(tmp_path / "x.patch"))
        .split()
    )
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    verdict = diagnose_build(done.stdout + done.stderr)
    assert verdict is not None
    assert (verdict.id, verdict.exit_code) == ("source-differs", 8)
    assert source.read_text() == "int other;\n" * 400


def test_images_name_what_they_do_without() -> None:
    cuda, cpu = row("cu124-sm89"), row("cpu")
    bases = targets().bases
    assert (
        image_labels(cuda, ENGINE, bases[cuda.base])["io.sdrun.left-out"]
        == "attention,matmul-widths,matmul-experts,loading-pauses"
    )
    assert image_labels(cpu, ENGINE, bases[cpu.base])["io.sdrun.left-out"] == "loading-pauses"
    files = render(cuda, ENGINE, bases[cuda.base])
    assert {f"{part.part}.patch" for part in ENGINE.left_out} <= set(files)
    assert [name for name in render(cpu, ENGINE, bases[cpu.base]) if name.endswith(".patch")] == ["loading-pauses.patch"]
    bare = replace(ENGINE, left_out=())
    assert "io.sdrun.left-out" not in image_labels(cpu, bare, bases[cpu.base])
    assert "patch" not in render(cpu, bare, bases[cpu.base])["Dockerfile"]


def test_full_leaves_nothing_out_under_another_tag() -> None:
    target, engine = in_full(row("cu124-sm89"), ENGINE)
    assert (target.tag, engine.left_out) == ("sdcpp-90e87bc-full-cu124-sm89", ())
    files = render(target, engine, targets().bases[target.base])
    assert not any(name.endswith(".patch") for name in files)
    assert "left-out/" not in files["Dockerfile"]
    assert image_labels(target, engine, targets().bases[target.base])["io.sdrun.left-out"] == ""


def test_a_local_engine_is_not_patched(tmp_path: Path) -> None:
    assert with_local_source(row("cu124-sm89"), ENGINE, tmp_path)[1].left_out == ()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("- part: matmul-widths", "- part: Types", "must be a name of lower-case letters"),
        ("- part: matmul-widths", "- part: other", "has no patch: "),
        ("- part: matmul-widths", "- part: attention", "names a part twice"),
        (
            TILE,
            "- ../x.cu",
            "must be a path inside the source",
        ),
        (
            TILE,
            "- /x; reboot",
            "must be a path inside the source",
        ),
    ],
)
def test_bad_rows(refused_engines: Callable[[str, str, str], None], old: str, new: str, fault: str) -> None:
    refused_engines(old, new, fault)


def test_an_engine_may_leave_out_nothing(tmp_path: Path) -> None:
    text = (images_dir() / "engines.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("    left_out:\n")
    (tmp_path / "engines.yaml").write_text(head + "    samplers:" + rest.partition("    samplers:")[2], encoding="utf-8")
    assert engines(tmp_path / "engines.yaml")["sdcpp-90e87bc"] == replace(ENGINE, left_out=())
