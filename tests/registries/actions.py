"""Runs the `run:` steps of a rendered GitHub workflow on this machine, in their order, as a runner does: each with the shell,
the environment and the outputs that the workflow names. Of the steps that others wrote, those that hand over artifacts are
played; the others prepare what this machine has already."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_PATH = re.compile(r"[a-z]+(\.[A-Za-z_-]+)+")
_NOT_HERE = ("Install sdrun",)  # the environment of the tests has it


class StepFailed(AssertionError):
    """A step ended with another code than 0."""


@dataclass
class Job:
    """How a job ended: `success`, `failure` or `skipped`, and its outputs."""

    result: str = "skipped"
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """`workflow` is the parsed YAML; `inputs` and `secrets` what it was called with; `environ` the machine's own; every job
    works below `folder`."""

    workflow: Mapping[str, Any]
    inputs: Mapping[str, Any]
    secrets: Mapping[str, str]
    environ: Mapping[str, str]
    folder: Path
    ran: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    said: str = ""

    def run(self) -> dict[str, Job]:
        """All jobs, in the order in which they stand; each after those it needs."""
        for name, job in self.workflow["jobs"].items():
            needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            assert set(needs) <= set(self.jobs), "jobs stand after those that they need"
            self.jobs[name] = self._job(name, job, needs)
        return self.jobs

    def _job(self, name: str, job: Mapping[str, Any], needs: list[str]) -> Job:
        context: dict[str, Any] = {"inputs": self.inputs, "secrets": self.secrets, "needs": self.jobs}
        condition = str(job.get("if", ""))
        if (
            "always()" not in condition
            and "cancelled()" not in condition
            and any(self.jobs[n].result != "success" for n in needs)
        ):
            return Job()
        if condition and not self._true(condition, context):
            return Job()
        rows = [{}]
        if "strategy" in job:
            rows = json.loads(str(self._value(job["strategy"]["matrix"], context)))["include"]
        results = [self._steps(name, job, {**context, "matrix": row, "steps": {}}) for row in rows]
        outputs = {key: value for result in results for key, value in result.outputs.items()}
        return Job("success" if all(result.result == "success" for result in results) else "failure", outputs)

    def _steps(self, name: str, job: Mapping[str, Any], context: dict[str, Any]) -> Job:
        folder = self.folder / "-".join([name, *([str(context["matrix"]["name"])] if context["matrix"] else [])])
        folder.mkdir()
        try:
            for step in job["steps"]:
                if "if" in step and not self._true(str(step["if"]), context):
                    continue
                self._step(step, job.get("env", {}), context, folder)
        except StepFailed as failed:
            self.said += str(failed)
            return Job("failure")
        return Job("success", {key: str(self._value(text, context)) for key, text in job.get("outputs", {}).items()})

    def _step(self, step: Mapping[str, Any], env: Mapping[str, Any], context: dict[str, Any], folder: Path) -> None:
        if "uses" in step:
            self._hand_over(step, context, folder)
            return
        if step["name"] in _NOT_HERE:
            return
        assert "${{" not in step["run"], "an expression inside a script is text that becomes code"
        given = {key: _text(self._value(value, context)) for key, value in {**env, **step.get("env", {})}.items()}
        output = folder / "github-output"
        output.touch()
        own = {"GITHUB_OUTPUT": str(output), "GITHUB_PATH": str(folder / "github-path")}
        assert self.workflow["defaults"]["run"]["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder,
            env={**self.environ, **own, **given},
            capture_output=True,
            text=True,
            check=False,
        )
        self.ran.append(step["name"])

        if done.returncode != 0:
            raise StepFailed(f"{step['name']}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        if "id" in step:
            lines = [line.partition("=") for line in output.read_text().splitlines()]
            context["steps"][step["id"]] = {"outputs": {key: value for key, _, value in lines}}

    def _hand_over(self, step: Mapping[str, Any], context: dict[str, Any], folder: Path) -> None:
        action, given = step["uses"].partition("@")[0], step.get("with", {})
        shelf = self.folder / "artifacts"
        if action == "actions/upload-artifact":
            shutil.copytree(folder / given["path"], shelf / str(self._value(given["name"], context)))
        elif action == "actions/download-artifact":
            for found in sorted(shelf.glob(given["pattern"])):
                shutil.copytree(found, folder / given["path"], dirs_exist_ok=True)

    def _value(self, text: Any, context: Mapping[str, Any]) -> Any:
        if not isinstance(text, str):
            return text
        whole = _EXPRESSION.fullmatch(text)
        if whole is not None:
            return self._look_up(whole[1], context)
        return _EXPRESSION.sub(lambda match: _text(self._look_up(match[1], context)), text)

    def _look_up(self, expression: str, context: Mapping[str, Any]) -> Any:
        if match := re.fullmatch(r"fromJSON\((.*)\)", expression):
            return self._look_up(match[1], context)
        if expression == "join(needs.*.result, ' ')":
            return " ".join(job.result for job in self.jobs.values())
        assert _PATH.fullmatch(expression), f"this runner cannot read {expression}"
        value: Any = context
        for part in expression.split("."):
            value = getattr(value, part) if isinstance(value, Job) else value.get(part, "")
        return value

    def _true(self, condition: str, context: Mapping[str, Any]) -> bool:
        """Of a condition with `&&` alone."""
        text = condition.removeprefix("${{").removesuffix("}}")
        return all(self._holds(part.strip(), context) for part in text.split("&&"))

    def _holds(self, part: str, context: Mapping[str, Any]) -> bool:
        if part in ("always()", "!cancelled()"):
            return True
        for sign in ("==", "!="):
            if sign in part:
                left, right = (side.strip() for side in part.split(sign))
                return (str(self._look_up(left, context)) == right.strip("'")) == (sign == "==")
        return bool(self._look_up(part, context))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def own_environment(**more: str) -> dict[str, str]:
    """This machine's, less what would tell a step that it runs in some other CI."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "CI"))}, **more}
