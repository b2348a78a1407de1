"""`sdrun generate` without --model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sdrun.catalog.models import models


def generate(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Where no container runtime answers, so that it ends after the model has been looked for."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "SDRUN_RUNTIME": "docker", "DOCKER_HOST": f"unix://{home}/none"}
    argv = [sys.executable, "-m", "sdrun", "generate", "-p", "a red circle", "--dry-run", *words]
    return subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, check=False)


def test_takes_the_catalogues_default_and_says_so_in_one_line(tmp_path: Path) -> None:
    done = generate(tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    said = [line for line in done.stderr.splitlines() if line.startswith(f"model {models().default} ")]
    assert len(said) == 1
    assert "-m" in said[0]


def test_says_nothing_where_one_is_named(tmp_path: Path) -> None:
    done = generate(tmp_path, "-m", "tiny")
    assert done.returncode == 6
    assert not any(line.startswith("model ") for line in done.stderr.splitlines())
