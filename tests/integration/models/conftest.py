"""The engine of the cpu image, run on the model tiny by plain `docker run`: what is tested here is the model, not sdrun's way
of starting containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.catalog.models import models
from sdrun.models.naming import resolve_model

RunEngine = Callable[..., Path]
IMAGE = os.environ.get("SDRUN_TEST_IMAGE", "sdrun:sdcpp-90e87bc-cpu")


@pytest.fixture(scope="session")
def image() -> str:
    if shutil.which("docker") is None:
        pytest.skip("no docker here")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        pytest.skip(f"the image {IMAGE} is not here; `make test` builds it")
    return IMAGE


@pytest.fixture(scope="session")
def run_engine(image: str, tmp_path_factory: pytest.TempPathFactory) -> RunEngine:
    """`run_engine(prompt, seed, *options)` draws with the model's defaults and returns the picture's path."""
    found = resolve_model("tiny", models(), tmp_path_factory.mktemp("cache"))
    assert found.defaults is not None
    defaults = found.defaults
    inside = {role: f"/model/{path.name}" for role, path in found.files.items()}
    out = tmp_path_factory.mktemp("out")
    fixed = ["docker", "run", "--rm", "--network=none", "--read-only", f"--user={os.getuid()}:{os.getgid()}"]
    fixed += [f"--volume={path.resolve()}:{inside[role]}:ro" for role, path in found.files.items()]
    fixed += [f"--volume={out}:/out", image]
    fixed += ["--diffusion-model", inside["diffusion"], "--llm", inside["llm"], "--tae", inside["tae"]]
    fixed += ["--steps", str(defaults.steps), "--cfg-scale", str(defaults.cfg_scale), "--sampling-method", defaults.sampler]
    fixed += ["-W", str(defaults.width), "-H", str(defaults.height)]
    drawn = 0

    def run(prompt: str, seed: int, *options: str) -> Path:
        nonlocal drawn
        drawn += 1
        argv = [*fixed, "-p", prompt, "-s", str(seed), "-o", f"/out/{drawn}.png", *options]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        return out / f"{drawn}.png"

    return run
