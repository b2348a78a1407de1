"""The workflow that publishes, run: its own steps, in order, against a registry with TLS and a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdrun.catalog.engines import engines
from sdrun.catalog.workflows import workflows
from sdrun.core.labels import RECIPE, TARGET
from sdrun.core.oci import read_index
from sdrun.render.workflow import render_workflows
from sdrun.resources import cache_root
from sdrun.runtime.protocol import LocalImage
from tests.registries.actions import Runner, own_environment
from tests.registries.conftest import Place
from tests.registries.server import PASSWORD, USER

pytestmark = pytest.mark.integration
CACHE = cache_root()  # of the user, before a test has one of its own: the engine's source is there
ENGINE = next(iter(engines()))


@pytest.fixture
def workflow() -> Any:
    """images.yml, as it is rendered."""
    return yaml.safe_load(render_workflows("github", workflows())[".github/workflows/images.yml"])


@pytest.fixture
def environ(place: Place) -> dict[str, str]:
    """A machine on which nobody has logged in to the registry."""
    (place.home / ".docker" / "config.json").unlink()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return own_environment(PATH=path, HOME=str(place.home), SDRUN_CACHE_DIR=str(CACHE))


def runner(workflow: Any, place: Place, environ: dict[str, str], folder: Path, targets: str = "cpu") -> Runner:
    folder.mkdir()
    inputs = {"registry": str(place.repository), "targets": targets, "user": USER, "sign": False}
    return Runner(workflow, inputs, {"password": PASSWORD}, environ, folder)


@pytest.mark.timeout(900)  # reads the image back and packs it; minutes where other builds take the processors
def test_it_publishes_what_is_missing_and_then_nothing(
    workflow: Any, place: Place, environ: dict[str, str], tmp_path: Path, cpu_image: LocalImage
) -> None:
    first = runner(workflow, place, environ, tmp_path / "first")
    jobs = first.run()
    assert {name: job.result for name, job in jobs.items()} == dict.fromkeys(
        ("matrix", "image", "index", "passed"), "success"
    ), first.said
    steps = ["Log in to the registry", "Find what is not published yet", "Log in to the registry", "Build"]
    steps += ["Prove what the image holds", "Push by digest", "Log in to the registry", "Tag, and write the index"]
    assert first.ran == [*steps, "Look at every job's end"]
    client = place.open()
    try:
        index = read_index(client.read_manifest(ENGINE).document)
        (image,) = index.images
        assert (image.annotations[TARGET], client.digest_of(f"{ENGINE}-cpu")) == ("cpu", image.digest)
        assert client.digest_of("latest") == client.digest_of(ENGINE)
    finally:
        client.close()
    again = runner(workflow, place, environ, tmp_path / "again")
    jobs = again.run()
    assert {name: job.result for name, job in jobs.items()} == {
        "matrix": "success",
        "image": "skipped",
        "index": "skipped",
        "passed": "success",
    }, again.said
    check_another_recipe_is_told(place, environ)


def check_another_recipe_is_told(place: Place, environ: dict[str, str]) -> None:
    """Before a build, whose image could have no tag."""
    client = place.open()
    try:
        manifest = client.read_manifest(ENGINE)
        document = json.loads(manifest.body)
        document["manifests"][0]["annotations"][RECIPE] = f"sha256:{'0' * 64}"
        client.put_manifest(json.dumps(document).encode(), manifest.media_type, ENGINE)
    finally:
        client.close()
    argv = ["sdrun", "matrix", "cpu", "--format", "github", "--unpublished", str(place.repository)]
    done = subprocess.run([sys.executable, "-m", *argv], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert f"{ENGINE}-cpu was published from another recipe" in done.stderr
    assert "another name" in done.stderr


def test_a_step_that_fails_stops_the_rest_and_the_gate(
    workflow: Any, place: Place, environ: dict[str, str], tmp_path: Path, cpu_image: LocalImage
) -> None:
    """A wrong password: nothing is built, and the gate, which alone a branch need ask for, is red."""
    wrong = runner(workflow, place, environ, tmp_path / "wrong")
    wrong.secrets = {"password": "not this"}
    jobs = wrong.run()
    assert [jobs[name].result for name in ("matrix", "image", "index", "passed")] == [
        "failure",
        "skipped",
        "skipped",
        "failure",
    ]
    assert "Build" not in wrong.ran
    assert place.front.count("PUT|POST|PATCH", ".*") == 0
