"""One row adds a target: it appears in the Dockerfiles, the bake plan and the CI matrix, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.target import to_json
from sdrun.render.dockerfile import render
from sdrun.render.matrix import as_bake, as_github, as_list
from sdrun.resources import images_dir

ROW = '  - {target: cu130-sm90a, sass: ["90a"], platform: linux/arm64}\n'


def test_one_row(tmp_path: Path) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text((images_dir() / "targets.yaml").read_text(encoding="utf-8") + ROW, encoding="utf-8")
    catalogue = targets(file)
    (new,) = set(catalogue.rows) - set(targets().rows)
    assert new.name == "cu130-sm90a-arm64"

    files = render(new, engines()[new.engine], catalogue.bases[new.base])
    assert "-DCMAKE_CUDA_ARCHITECTURES=90a-real" in files["Dockerfile"]
    assert "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16" in files["Dockerfile"]
    assert 'io.sdrun.sass="90a"' in files["Dockerfile"]
    assert '#define GUARD_TARGET "cu130-sm90a"' in files["guard-target.h"]

    bake = as_bake(catalogue.rows, catalogue.bases, "out", "registry.example/sdrun")
    assert bake["target"][new.name] == {  # type: ignore[index]
        "context": "out/sdcpp-90e87bc-cu130-sm90a-arm64",
        "dockerfile": "Dockerfile",
        "platforms": ["linux/arm64"],
        "tags": ["registry.example/sdrun:sdcpp-90e87bc-cu130-sm90a-arm64"],
        "args": {"BASE": "debian:trixie-slim"},
    }
    assert new.name in bake["group"]["cu130"]["targets"]  # type: ignore[index]

    jobs = as_github(catalogue.rows)["include"]
    assert {"target": "cu130-sm90a", "runner": "ubuntu-24.04-arm", "name": new.name}.items() <= jobs[-1].items()  # type: ignore[index]
    assert to_json(new)["target"] in {row["target"] for row in as_list(catalogue.rows)["targets"]}  # type: ignore[attr-defined]


def test_names_are_one_each() -> None:
    """Two platforms of one target must not meet in a folder, a job or a tag."""
    rows = targets().rows
    assert len({row.name for row in rows}) == len(rows)
    bake = as_bake(rows, targets().bases, "out", "sdrun")
    tags = [tag for target in bake["target"].values() for tag in target["tags"]]  # type: ignore[attr-defined]
    assert len(set(tags)) == len(rows)
    assert json.loads(json.dumps(bake)) == bake
