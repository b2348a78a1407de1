"""`sdrun selftest` on the real engine: sound, it says so; given another recorded picture, it says which kernels are off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdrun.catalog.selftest import pictures_dir, selftest
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.selftest import run
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

pytestmark = pytest.mark.integration


def test_the_cpu_image_computes_right(cpu_image: LocalImage, environment: dict[str, str], work: Path) -> None:
    argv = [sys.executable, "-m", "sdrun", "selftest", "--image", cpu_image.id, "--gpu", "none", "--allow-cpu"]
    done = subprocess.run([*argv, "--json"], cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["status"], document["target"], document["device"]) == ("ok", "cpu", "cpu")
    assert set(document["cleared"]) == set(selftest().families)
    assert len(done.stderr.splitlines()) >= len(document["probes"]), "each is told while it is drawn"
    assert list(work.iterdir()) == []


def test_is_no_cpu_run_unless_that_was_allowed(cpu_image: LocalImage, environment: dict[str, str], work: Path) -> None:
    argv = [sys.executable, "-m", "sdrun", "selftest", "--image", cpu_image.id, "--gpu", "none", "--quick", "--json"]
    done = subprocess.run(argv, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["id"] == "cpu-not-allowed"


def test_a_picture_that_is_not_as_recorded_is_told(
    cpu_image: LocalImage,
    docker_runtime: ContainerRuntime,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recorded pictures that flash attention drew are darkened, so the engine's are not within the bounds."""
    suite = selftest()
    probes = tuple(probe for probe in suite.probes if probe.name in ("autoencoder", "f16", "f32", "flash-f16"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in {name for probe in probes for name in (probe.picture, probe.init) if name}:
        with Image.open(pictures_dir() / name) as picture:
            dark = picture.convert("RGB").point(lambda value: value * 3 // 4)
            (dark if name == "flash-f16.png" else picture).save(pictures / name)
    monkeypatch.setenv("SDRUN_STATE_DIR", environment["SDRUN_STATE_DIR"])
    result = run(
        suite,
        probes,
        Wishes(gpu="none", allow_cpu=True, image=cpu_image.id),
        Fetching(pull=False),
        Listener(),
        lambda: docker_runtime,
        pictures,
    )
    assert result.finding.off == ("flash-attention",)
    error = result.error()
    assert error is not None
    assert "flash attention is computed wrongly" in error.message
