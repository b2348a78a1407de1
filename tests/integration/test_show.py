"""A picture says how it was made and can be made again, the same: the real program and a real container."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sdrun import __version__
from sdrun.launch.png import pixels_of
from sdrun.runtime.protocol import LocalImage

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cpu_image")]

QUICK = ("-m", "tiny", "--allow-cpu", "--gpu", "none", "--steps", "2", "-W", "64", "-H", "64")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SDRUN_STATE_DIR": str(tmp_path / "state"), "SDRUN_RUNTIME": "docker"}


def sdrun(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sdrun", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=120)


def test_the_same_picture_again(tmp_path: Path, environment: dict[str, str], cpu_image: LocalImage) -> None:
    prompt = 'a "fox"\'s\nden — 🦊 $HOME'
    done = sdrun(
        "generate", *QUICK, "-p", prompt, "-n", "--dark", "-s", "7", "-b", "2", "-o", "a.png", cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    second = tmp_path / "a_2.png"

    shown = json.loads(sdrun("show", str(second), "--json", cwd=tmp_path, env=environment).stdout)
    assert shown["schema"] == "sdrun.picture/v1"
    assert (shown["prompt"], shown["negative_prompt"], shown["seed"]) == (prompt, "--dark", 8)
    assert (shown["width"], shown["height"], shown["steps"], shown["sampler"]) == (64, 64, 2, "euler")
    assert {file["role"] for file in shown["model"]["files"] if len(file["sha256"]) == 64} == {"diffusion", "llm", "tae"}
    assert shown["image"]["digest"] == cpu_image.id
    assert shown["image"]["revision"] == cpu_image.labels["io.sdrun.engine-revision"]
    assert (shown["sdrun"], shown["device"]) == (__version__, "cpu")

    again = sdrun("show", str(second), "--repeat", "-o", "again.png", cwd=tmp_path, env=environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout == f"{tmp_path}/again.png\n"
    assert pixels_of((tmp_path / "again.png").read_bytes()) == pixels_of(second.read_bytes())
    assert pixels_of((tmp_path / "again.png").read_bytes()) != pixels_of((tmp_path / "a_1.png").read_bytes())

    # The printed command is that very run: a third time, the whole file is the same.
    line = sdrun("show", "again.png", "--command", cwd=tmp_path, env=environment).stdout
    third = sdrun(*shlex.split(line)[1:], "-o", "third.png", cwd=tmp_path, env=environment)
    assert third.returncode == 0, third.stderr
    assert (tmp_path / "third.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_nothing_is_written_where_it_is_not_wanted(tmp_path: Path, environment: dict[str, str]) -> None:
    done = sdrun("generate", *QUICK, "-p", "a secret", "--no-metadata", "-o", "a.png", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "a.png").read_bytes()
    assert b"secret" not in data
    assert b"tiny" not in data
    shown = sdrun("show", "a.png", "--json", cwd=tmp_path, env=environment)
    assert shown.returncode == 8
    assert json.loads(shown.stdout)["id"] == "no-metadata"


def test_what_is_not_repeated_unseen(tmp_path: Path, environment: dict[str, str]) -> None:
    done = sdrun("generate", *QUICK, "-p", "a", "-o", "a.png", "--", "--eta", "0.5", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    again = sdrun("show", "a.png", "--repeat", cwd=tmp_path, env=environment)
    assert again.returncode == 2
    assert "not repeated unseen" in again.stderr
    assert sdrun("show", "a.png", "--command", cwd=tmp_path, env=environment).stdout.endswith(" -- --eta 0.5\n")
