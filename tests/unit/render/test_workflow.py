"""The rendered workflows: current, valid by their schemas, sound by zizmor, their scripts by shellcheck."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdrun.catalog.ci import ci
from sdrun.catalog.targets import targets
from sdrun.catalog.workflows import workflows
from sdrun.cli.main import main
from sdrun.errors import BadConfiguration
from sdrun.render.matrix import as_github, rows_of
from sdrun.render.workflow import render_workflows
from sdrun.resources import images_dir

ROOT = images_dir().parent
GITHUB = render_workflows("github", workflows())
ROWS = rows_of(as_github([row for row in targets().rows if str(row.id) in ("cpu", "cu130-sm90")], ci()))
GITLAB = {**render_workflows("gitlab", workflows()), **render_workflows("gitlab-images", workflows(), ROWS)}


def program(name: str) -> str:
    """A checker that is installed beside Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name} is missing: pip install .[dev]"
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """All of them as files."""
    for path, text in {**GITHUB, **GITLAB}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def scripts(document: Any) -> Iterator[str]:
    """Every shell script in a workflow."""
    for job in document.get("jobs", {}).values():
        yield from (step["run"] for step in job.get("steps", []) if "run" in step)
    for job in document.values():
        if isinstance(job, dict) and isinstance(job.get("script"), list):
            yield "\n".join(job["script"])


@pytest.mark.skipif(not (ROOT / ".github").is_dir(), reason="not a checkout")
@pytest.mark.parametrize("path", GITHUB)
def test_the_projects_own_are_as_rendered(path: str) -> None:
    assert (ROOT / path).read_text() == GITHUB[path], "sdrun render --ci github -o ."


def test_they_are_what_their_schemas_say(written: Path) -> None:
    check = program("check-jsonschema")
    files = [str(written / path) for path in GITHUB]
    subprocess.run([check, "--builtin-schema", "vendor.github-workflows", *files], check=True, capture_output=True)
    argv = [check, "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    subprocess.run([*argv, *(str(written / path) for path in GITLAB)], check=True, capture_output=True)


def test_zizmor_finds_nothing(written: Path) -> None:
    argv = [program("zizmor"), "--offline", "--no-progress", "--persona", "pedantic", "--format", "json"]
    done = subprocess.run([*argv, str(written / ".github")], capture_output=True, text=True, check=False)
    findings = json.loads(done.stdout)
    assert [(row["ident"], row["locations"][0]["symbolic"]["key"]) for row in findings if not row["ignored"]] == []
    assert done.returncode == 0, done.stderr


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    count = 0
    for text in {**GITHUB, **GITLAB}.values():
        for script in scripts(yaml.safe_load(text)):
            count += 1
            (tmp_path / f"{count}.sh").write_text(f"#!/bin/bash\nset -eo pipefail\n{script}")
    assert count > 20
    argv = [program("shellcheck"), *map(str, tmp_path.glob("*.sh"))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", GITHUB)
def test_every_action_is_at_the_commit_of_its_row(path: str) -> None:
    used = re.findall(r"uses: (\S+)@(\S+) # (v\S+)", GITHUB[path])
    assert len(used) == len(re.findall(r"uses: [^.]", GITHUB[path]))
    for name, commit, version in used:
        pin = workflows().actions["/".join(name.split("/")[:2])]
        assert (commit, version) == (pin.commit, pin.version)


@pytest.mark.parametrize("path", GITHUB)
def test_no_expression_stands_in_a_script(path: str) -> None:
    """What a caller, a branch or a row says reaches a script as a variable only."""
    document = yaml.safe_load(GITHUB[path])
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert "permissions" in job
        assert "timeout-minutes" in job or "uses" in job
    for script in scripts(document):
        assert "${{" not in script


def test_gitlab_has_a_job_for_each_row() -> None:
    document = yaml.safe_load(GITLAB["images.gitlab-ci.yml"])
    jobs = {name: job for name, job in document.items() if name.startswith("image ")}
    assert set(jobs) == {f"image {row['name']}" for row in ROWS}
    assert {job["tags"][0] for job in jobs.values()} == set(workflows().runners.values())
    steps = "\n".join(jobs["image cpu"]["script"])
    own = [
        step["run"]
        for step in yaml.safe_load(GITHUB[".github/workflows/images.yml"])["jobs"]["image"]["steps"]
        if "run" in step
    ]
    assert all(script.strip() in steps for script in own[-3:])  # build, prove, push: the same lines
    nothing = yaml.safe_load(render_workflows("gitlab-images", workflows())["images.gitlab-ci.yml"])
    assert "nothing-is-missing" in nothing


def test_a_row_of_any_text_stays_a_value() -> None:
    odd = {name: f"a\": {{x}} # '{name}" for name in ("name", "target", "toolkit", "toolchain", "tag")} | {
        "platform": "linux/amd64"
    }
    document = yaml.safe_load(render_workflows("gitlab-images", workflows(), [odd])["images.gitlab-ci.yml"])
    assert document[f"image {odd['name']}"]["variables"]["TARGET"] == odd["target"]


@pytest.mark.parametrize("document", [None, [], {}, {"include": 1}, {"include": [1]}, {"include": [{"name": "x"}]}])
def test_what_is_no_matrix_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="is no matrix"):
        rows_of(document)


def sdrun(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["sdrun", "render", *words])
    return main()


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = tmp_path / "rows.json", tmp_path / "out"
    rows.write_text(json.dumps({"include": ROWS}))
    assert sdrun(monkeypatch, "--ci", "gitlab-images", "--rows", str(rows), "-o", str(out), "--json") == 0
    (written,) = json.loads(capsys.readouterr().out)["rendered"]
    assert Path(written["workflow"]).read_text() == GITLAB["images.gitlab-ci.yml"]
    rows.write_text("{}")
    for words, code in (
        (("--ci", "gitlab-images", "--rows", str(rows)), 8),
        (("--ci", "gitlab-images"), 2),
        (("--ci", "github", "--rows", str(rows)), 2),
        (("--ci", "github", "cpu"), 2),
        (("--ci", "jenkins"), 2),
        ((), 2),
        (("--ci", "github", "-o", str(rows / "below")), 2),
    ):
        assert sdrun(monkeypatch, "-o", str(out), *words) == code, words
    assert [path.name for path in out.iterdir()] == ["images.gitlab-ci.yml"]
    capsys.readouterr()
    sdrun(monkeypatch, "-o", str(out), "--ci", "gitlab-images", "--rows", str(rows))
    assert "rows.json: is no matrix" in capsys.readouterr().err


def test_a_matrix_that_cannot_be_is_told_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["sdrun", "matrix", "cu9*", "--json"])
    assert main() == 2
    assert json.loads(capsys.readouterr().out)["id"] == "unknown-target"


def test_faults_of_the_pins_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "workflows.yaml"
    text = (images_dir() / "workflows.yaml").read_text()
    text = re.sub(r"commit: \w+", "commit: main", text, count=1).replace("version: v5.0.5", "version: v5")
    file.write_text(
        text.replace("platform: linux/arm64", "platform: linux/amd64x86").replace("github:\n", "github:\n  more: 1\n")
    )
    with pytest.raises(BadConfiguration) as faults:
        workflows(file)
    told = faults.value.message + str(faults.value.detail)
    assert all(text in told for text in ("full commit", "a release such as", "more"))
