"""The drawing part of a proof: asked for once, recorded with the proof, asked again where it could not be done, fatal where it
found the image wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.build import image as building
from sdrun.build import verifying
from sdrun.build.image import BuiltImage, Exercise, Recipe, build
from sdrun.build.proof import Proof
from sdrun.build.source import FetchedSource
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.labels import RECIPE, image_labels
from sdrun.core.selftest import NOT_RUN
from sdrun.errors import EngineFailed
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

PROOF = Proof(("libc.so.6",), "stable-diffusion.cpp", 20, 50)
CPU = next(row for row in targets().rows if row.name == "cpu")
ENGINE, BASE = engines()[CPU.engine], targets().bases[CPU.base]
Build = Callable[[Exercise | None], BuiltImage]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`built(exercise)`: `build` where the image of the same recipe is there already and was never read back."""
    source = FetchedSource(tmp_path / "engine.tar", "0" * 64, False)
    monkeypatch.setattr(building, "fetch", lambda *rest: source)
    monkeypatch.setattr(building, "render", lambda *rest: {"Dockerfile": "FROM scratch\n"})
    monkeypatch.setattr(building, "prove_image", lambda *rest: PROOF)
    recipe = Recipe(CPU, ENGINE, BASE, {"Dockerfile": "FROM scratch\n"}, source)
    labels = image_labels(CPU, ENGINE, BASE) | {RECIPE: recipe.digest}
    runtime = FakeRuntime(local=[LocalImage("sha256:1", (recipe.reference,), (), labels, 1, "linux/amd64")])

    def again(exercise: Exercise | None) -> BuiltImage:
        return build(CPU, ENGINE, BASE, runtime, say=print, on_step=print, cache=tmp_path, exercise=exercise)

    return again


def saying(*lines: str) -> tuple[Exercise, list[str]]:
    """An exercise that says these, one a call, and the images it was asked about."""
    left, asked = list(lines), []

    def exercise(image: LocalImage, runtime: ContainerRuntime) -> str:
        asked.append(image.id)
        return left.pop(0)

    return exercise, asked


def test_is_done_once_for_an_image_and_recorded(built: Build) -> None:
    exercise, asked = saying("9 pictures are as recorded on cpu")
    assert built(exercise).proof == replace(PROOF, selftest="9 pictures are as recorded on cpu")
    assert built(exercise).proof.selftest == "9 pictures are as recorded on cpu"
    assert built(None).proof.selftest == "9 pictures are as recorded on cpu"
    assert asked == ["sha256:1"]


def test_is_done_later_for_an_image_that_was_read_back_without(built: Build) -> None:
    assert built(None).proof.selftest == ""
    exercise, asked = saying("right")
    assert built(exercise).proof.selftest == "right"
    assert asked == ["sha256:1"]


def test_is_tried_again_where_it_could_not_be_done(built: Build) -> None:
    exercise, asked = saying(f"{NOT_RUN}no GPU", "right")
    assert built(exercise).proof.selftest == f"{NOT_RUN}no GPU"
    assert built(exercise).proof.selftest == "right"
    assert len(asked) == 2


def test_an_image_that_computes_wrongly_is_refused_each_time(built: Build) -> None:
    def exercise(image: LocalImage, runtime: ContainerRuntime) -> str:
        raise EngineFailed("flash attention is computed wrongly", "Build it again.", id="kernels-wrong")

    for _ in range(2):
        with pytest.raises(EngineFailed, match="flash attention"):
            built(exercise)
    right, asked = saying("right")
    assert built(right).proof.selftest == "right", "nothing was recorded of the failure"
    assert asked == ["sha256:1"]


def test_verify_draws_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "prove_image", lambda *rest: PROOF)
    runtime = FakeRuntime(local=[LocalImage("sha256:1", ("sdrun:x",), (), image_labels(CPU, ENGINE, BASE), 1, "linux/amd64")])
    exercise, asked = saying("right")
    assert verifying.verify("sdrun:x", runtime, exercise)[1].selftest == "right"
    assert asked == ["sha256:1"]
    assert verifying.verify("sdrun:x", runtime)[1].selftest == ""
