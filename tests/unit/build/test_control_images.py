"""bench/control_images.py: each image is the one that suits a 9.0 but for its archs and what follows from them."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from sdrun.build.client import BuildClient
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.capability import ComputeCapability
from sdrun.core.code import match
from sdrun.core.index import IndexImage
from sdrun.render.dockerfile import render

BENCH = Path(__file__).parents[3] / "bench"
ON_90 = {"89": ("NONE", "no-code-for-capability"), "75ptx-86": ("MISMATCH", "arch-mismatch")}
ON_90 |= {"80ptx-86": ("MISMATCH", "arch-mismatch"), "ptx80": ("JIT", None)}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("control_images")
    finally:
        sys.path.remove(str(BENCH))


def test_the_verdicts_on_a_90(script: ModuleType) -> None:
    assert {control.name for control in script.CONTROLS + script.FURTHER} == set(ON_90)
    for control in script.CONTROLS + script.FURTHER:
        _, target, _, _ = script.changed(control)
        rule, reason = ON_90[control.name]
        assert f"{{90, {rule}, " in script.context_of(control)["guard-target.h"]
        image = IndexImage("x", "", target.platform, target.toolkit, target.sass, target.ptx)
        found = match(image, ComputeCapability(9, 0), mixes=False, facts=load_cuda_facts())
        assert (found.barred and found.barred.reason) == reason


def test_only_archs_labels_and_guard_differ(script: ModuleType) -> None:
    model = replace(next(row for row in targets().rows if row.name == script.MODEL), pruned=True)
    plain = render(model, engines()[model.engine], targets().bases[model.base])
    for control in [one for one in script.CONTROLS if not one.full]:
        files = script.context_of(control)
        assert {name for name in files if files[name] != plain[name]} == {"Dockerfile", "guard-target.h"}
        pairs = zip(plain["Dockerfile"].splitlines(), files["Dockerfile"].splitlines(), strict=True)
        for old, new in [pair for pair in pairs if pair[0] != pair[1]]:
            assert "CMAKE_CUDA_ARCHITECTURES" in old or " io.sdrun." in old or " org.opencontainers.image." in old, (old, new)


def test_the_full_one_has_the_plain_ones_toolchain(script: ModuleType) -> None:
    """Else BuildKit would install the toolkit, several gigabytes, a second time."""
    full = next(one for one in script.CONTROLS if one.full)
    plain = next(one for one in script.CONTROLS if not one.full)
    stages = [script._toolchain(script.context_of(one)["Dockerfile"]) for one in (full, plain)]
    assert stages[0] == stages[1]
    assert ".patch" not in script.context_of(full)["Dockerfile"]


def test_a_template_that_changed_is_noticed(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="0 times"):
        script._exchange("FROM scratch\n", " io.sdrun.sass=", " x")


def archive(path: Path, images: dict[str, list[str]], diff_ids: dict[str, list[str]]) -> None:
    """A tar as `docker save` writes it: each layer once, the list of images last."""
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for name in dict.fromkeys(name for layers in images.values() for name in layers):
            add(name, name.encode())
        for config, layers in diff_ids.items():
            add(config, json.dumps({"rootfs": {"diff_ids": layers}}).encode())
        add("manifest.json", json.dumps([{"Config": config, "Layers": names} for config, names in images.items()]).encode())


def test_what_the_model_begins_with_is_not_saved(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\ncase $1 in save) cat {tmp_path}/whole ;; *) echo \'["sha256:b", "sha256:t", "sha256:m"]\' ;; esac\n',
        encoding="utf-8",
    )
    docker.chmod(0o755)
    archive(
        tmp_path / "whole",
        {"one.json": ["b.tar", "t.tar", "1.tar"], "two.json": ["b.tar", "other.tar", "t-again.tar"]},
        {"one.json": ["sha256:b", "sha256:t", "sha256:1"], "two.json": ["sha256:b", "sha256:o", "sha256:t"]},
    )
    script.save(["one", "two"], "model", tmp_path / "part.tar", BuildClient(str(docker), "docker", ""))
    with tarfile.open(tmp_path / "part.tar") as tar:
        assert {name for name in tar.getnames() if name.endswith(".tar")} == {"1.tar", "other.tar", "t-again.tar"}
        assert {"one.json", "two.json", "manifest.json"} <= set(tar.getnames())
    assert {path.name for path in tmp_path.iterdir()} == {"docker", "whole", "part.tar"}
    with pytest.raises(subprocess.CalledProcessError):
        script.save(["one"], "model", tmp_path / "x.tar", BuildClient("/bin/false", "docker", ""))
