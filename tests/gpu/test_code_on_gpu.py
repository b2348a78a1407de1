"""Which code runs: machine code and nothing that the driver compiles; and what an image for another GPU says beforehand."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import prepare
from sdrun.launch.preparing import run_name
from sdrun.launch.request import Request
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit, LocalImage
from tests.gpu.running import Sdrun, created_since, request_of

pytestmark = pytest.mark.gpu

Record = Callable[[str, object], None]
# The driver compiles no PTX, and finds none that it compiled before: CUDA C++ Programming Guide, environment variables.
NO_JIT: Mapping[str, str] = {"CUDA_DISABLE_PTX_JIT": "1", "CUDA_CACHE_DISABLE": "1"}


def contained(runtime: ContainerRuntime, spec: ContainerSpec) -> tuple[Exit, str]:
    """How a container ended, and all that it said."""
    output: list[bytes] = []
    ended = runtime.run(spec, lambda stream, data: output.append(data))
    return ended, b"".join(output).decode(errors="replace")


def drawing(runtime: ContainerRuntime, image: str | None, folder: Path) -> ContainerSpec:
    """The container that `sdrun generate` would start, told to compile no PTX; it writes x.png into `folder`."""
    request = Request("shapes", "a red circle", output=folder / "x.png", seed=1)
    wishes = Wishes(image=image)
    environ = Sdrun(folder).environ
    prepared, _ = prepare(request, wishes, Fetching(pull=False), Listener(), lambda: runtime, environ)
    spec = prepared.spec(folder, "x.png", run_name())
    return replace(spec, environment={**spec.environment, **NO_JIT})


def test_the_code_is_native(plan: dict[str, Any], runtime: ContainerRuntime, tmp_path: Path, record_property: Record) -> None:
    assert plan["code_path"] == "sass-exact"
    ended, said = contained(runtime, drawing(runtime, None, tmp_path))
    assert ended.code == 0, said[-2000:]
    assert "ggml_cuda_init: found" in said
    assert (tmp_path / "x.png").is_file()
    record_property("environment", dict(NO_JIT))
    record_property("engine_seconds", round(ended.seconds, 2))


def test_without_machine_code_the_same_run_fails(
    ptx_only: LocalImage, runtime: ContainerRuntime, tmp_path: Path, record_property: Record
) -> None:
    """So the variable does what the test above relies on."""
    ended, said = contained(runtime, drawing(runtime, ptx_only.tags[0], tmp_path))
    assert ended.code != 0
    assert not (tmp_path / "x.png").exists()
    record_property("exit", ended.code)
    record_property("said", [line[:160] for line in said.splitlines() if "error" in line.lower()][:3])


def test_the_guard_refuses_an_image_for_another_gpu(
    stranger: LocalImage, plan: dict[str, Any], host: dict[str, Any], runtime: ContainerRuntime, record_property: Record
) -> None:
    """Started by hand, as a pod would be: exit 4 and one sentence, before the engine is."""
    gpu = next(gpu for gpu in host["gpus"] if gpu["uuid"] in plan["devices"])
    spec = ContainerSpec(stranger.id, ("--version",), f"{os.geteuid()}:{os.getegid()}", gpu=request_of(plan))
    ended, said = contained(runtime, spec)
    assert ended.code == 4, said
    (line,) = said.strip().splitlines()
    assert line.startswith("sdrun guard: no-code-for-capability: ")
    assert f"{gpu['name']} (compute capability {gpu['compute_capability']})" in line
    assert re.search(rf"use target \S+-sm{gpu['compute_capability'].replace('.', '')}\b", line)
    record_property("image", stranger.tags[0])
    record_property("said", line)


@pytest.mark.parametrize("verb", ["generate", "serve"])
def test_the_launcher_refuses_it_before_that(
    verb: str, stranger: LocalImage, plan: dict[str, Any], sdrun: Sdrun, record_property: Record
) -> None:
    begun = time.time()
    words = ("-p", "x", "-o", "x.png") if verb == "generate" else ("--port", "0")
    done = sdrun(verb, "-m", "shapes", "--image", stranger.tags[0], *words, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["id"]) == (4, 4, "no-code-for-capability")
    assert created_since(begun) == ""
    assert not (sdrun.work / "x.png").exists()
    record_property("said", f"{document['message']} {document['remedy']}")


def test_resolve_names_it_among_the_rejected(stranger: LocalImage, plan: dict[str, Any]) -> None:
    target = stranger.labels["io.sdrun.target"]
    assert {"target": target, "reason": "no-code-for-capability"}.items() <= next(
        row for row in plan["rejected"] if row["target"] == target
    ).items()


def test_no_jit_takes_no_image_that_holds_ptx_alone(ptx_only: LocalImage, plan: dict[str, Any], sdrun: Sdrun) -> None:
    done = sdrun("generate", "-m", "shapes", "-p", "x", "--image", ptx_only.tags[0], "--no-jit", "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (4, "jit-forbidden")
