"""One row adds a target: it appears in Dockerfiles, bake plan, CI matrix and README, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdrun.catalog.ci import ci
from sdrun.catalog.targets import targets
from sdrun.render.matrix import as_bake

TOP = Path(__file__).parents[3]
FIRST = "targets:\n"
ROW = '  - {target: cu130-sm90a, sass: ["90a"], platform: linux/arm64}\n'


def buildx() -> list[str] | None:
    """The buildx plugin as a program of its own (`bake --print` asks no daemon), or as docker's."""
    folders = (Path.home() / ".docker/cli-plugins", Path("/usr/local/libexec/docker/cli-plugins"),
               Path("/usr/local/lib/docker/cli-plugins"), Path("/usr/libexec/docker/cli-plugins"),
               Path("/usr/lib/docker/cli-plugins"))  # fmt: skip
    for candidate in (*(str(folder / "docker-buildx") for folder in folders), shutil.which("docker-buildx")):
        if candidate and os.access(candidate, os.X_OK):
            return [candidate]
    return None


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project without its tests, with one row more."""
    for folder in ("sdrun", "images", "templates", "tools", "bench/results", "docs"):
        shutil.copytree(TOP / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "README.md", tmp_path)
    file = tmp_path / "images" / "targets.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(FIRST, FIRST + ROW, 1), encoding="utf-8")
    return tmp_path


def run(copy: Path, *arguments: str) -> str:
    """What a program of the copy answers on stdout."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_row(copy: Path) -> None:
    name = "cu130-sm90a-arm64"
    (path,) = run(copy, "-m", "sdrun", "render", "cu130-sm90a", "-o", "out").split()
    assert path == f"out/sdcpp-90e87bc-{name}/Dockerfile"
    dockerfile = (copy / path).read_text(encoding="utf-8")
    assert "-DCMAKE_CUDA_ARCHITECTURES=90a-real" in dockerfile
    assert "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16" in dockerfile
    assert 'io.sdrun.sass="90a"' in dockerfile
    assert '#define GUARD_TARGET "cu130-sm90a"' in (copy / path).with_name("guard-target.h").read_text(encoding="utf-8")

    bake = json.loads(run(copy, "-m", "sdrun", "matrix", "--format", "bake", "--repository", "registry.example/sdrun"))
    assert bake["target"][name] == {
        "context": f"out/sdcpp-90e87bc-{name}",
        "dockerfile": "Dockerfile",
        "platforms": ["linux/arm64"],
        "tags": [f"registry.example/sdrun:sdcpp-90e87bc-{name}"],
        "args": {"BASE": "debian:trixie-slim"},
    }
    assert name in bake["group"]["cu130"]["targets"]
    assert name in bake["group"]["default"]["targets"]

    jobs = json.loads(run(copy, "-m", "sdrun", "matrix", "--format", "github"))["include"]
    job = next(job for job in jobs if job["name"] == name)
    assert {"target": "cu130-sm90a", "platform": "linux/arm64", "runner": "ubuntu-24.04-arm"}.items() <= job.items()
    listed = json.loads(run(copy, "-m", "sdrun", "matrix"))["targets"]
    assert {"name": name, "target": "cu130-sm90a", "sass": ["90a"]}.items() <= next(
        r for r in listed if r["name"] == name
    ).items()

    before = (copy / "README.md").read_text(encoding="utf-8")
    run(copy, "tools/readme.py")
    after = (copy / "README.md").read_text(encoding="utf-8")
    assert ("`cu130-sm90a` arm64" in before, "`cu130-sm90a` arm64" in after) == (False, True)
    assert next(line for line in after.splitlines() if "cu130-sm90a" in line).startswith("| 9.0 | H100")


def test_the_pages_are_what_rows_and_results_say() -> None:
    """Their tables are written by `make readme`."""
    done = subprocess.run([sys.executable, TOP / "tools" / "readme.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_drifted_readme_is_told(copy: Path) -> None:
    """The copy has a row that its README lacks."""
    done = subprocess.run(
        [sys.executable, "tools/readme.py", "--check"], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "make readme" in done.stderr) == (1, True)
    (copy / "README.md").write_text("no table\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "tools/readme.py"], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "README.md lacks the line" in done.stderr) == (1, True)


def test_a_drifted_result_is_told(copy: Path) -> None:
    """A measurement that was made anew, and the README as it was."""
    environ = {**os.environ, "PYTHONPATH": str(copy)}
    argv = [sys.executable, "tools/readme.py"]
    subprocess.run(argv, cwd=copy, env=environ, check=True)
    assert subprocess.run([*argv, "--check"], cwd=copy, env=environ, check=False).returncode == 0
    builds = copy / "bench" / "results" / "builds.json"
    document = json.loads(builds.read_text(encoding="utf-8"))
    document["figures"]["images"][0]["unpacked_bytes"] += 1_000_000
    builds.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run([*argv, "--check"], cwd=copy, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "make readme" in done.stderr) == (1, True)
    builds.unlink()
    done = subprocess.run(argv, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "the table sizes cannot be written" in done.stderr) == (1, True)


def test_names_are_one_each() -> None:
    """Two platforms of one target must not meet in a folder, a job or a tag."""
    rows = targets().rows
    assert len({row.name for row in rows}) == len(rows)
    bake: Any = as_bake(rows, targets().bases, "out", "sdrun")
    tags = [tag for target in bake["target"].values() for tag in target["tags"]]
    assert len(set(tags)) == len(rows)


def test_the_github_matrix_is_one_line_for_the_output_file() -> None:
    """`echo "matrix=$(sdrun matrix --format github)" >> "$GITHUB_OUTPUT"`: a second line would be another output."""
    text = run(TOP, "-m", "sdrun", "matrix", "--format", "github")
    assert text.count("\n") == 1
    jobs = json.loads(text)["include"]
    assert [job["name"] for job in jobs] == [row.name for row in targets().rows]
    keys = ["name", "target", "platform", "runner", "free_disk", "toolkit", "toolchain", "engine", "tag"]
    assert all(list(job) == keys and isinstance(job["free_disk"], bool) for job in jobs)
    by_name = {job["name"]: job for job in jobs}
    assert (by_name["cpu"]["free_disk"], by_name["cu124-sm89"]["free_disk"]) == (False, True)


def test_every_row_has_a_runner_and_a_known_size() -> None:
    for row in targets().rows:
        ci().runner(row)
        for name in row.toolchains:
            toolkit = row.toolkit
            assert toolkit is not None
            ci().frees_disk(row.built_with(targets().toolchains[name, toolkit]))


@pytest.mark.skipif(buildx() is None, reason="needs the buildx plugin (tools/from-debian.sh)")
def test_buildx_accepts_the_bake_file(tmp_path: Path) -> None:
    """Parsed, its groups resolved, and every target found again as it was written."""
    written = json.loads(run(TOP, "-m", "sdrun", "matrix", "--format", "bake"))
    (tmp_path / "bake.json").write_text(json.dumps(written), encoding="utf-8")
    argv = [*(buildx() or ()), "bake", "--print", "-f", "bake.json"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert read["group"]["default"]["targets"] == written["group"]["default"]["targets"]
    assert read["target"] == written["target"]
    done = subprocess.run([*argv, "cu118"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)["target"]) == set(written["group"]["cu118"]["targets"])
