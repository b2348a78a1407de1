"""The estimate against what a real GPU took (bench/results/fit_h100.json, written by bench/fit.py on an H100)."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fabricated import sparse

from sdrun.core.fit import peak
from sdrun.core.model import ModelFiles
from sdrun.core.needs import needs
from sdrun.models.family import check_file_set

ROOT = Path(__file__).parents[3]
ROWS = json.loads((ROOT / "bench/results/fit_h100.json").read_text(encoding="utf-8"))["rows"]


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_fit", ROOT / "bench/fit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['size']}{''.join(row['options'])}")
def test_an_upper_bound_that_is_not_far_off(row: dict[str, Any], bench: Any, folder: Path) -> None:
    files = {}
    for role, made in bench.SETS[row["model"]].items():
        maker, kind = bench.MAKERS[made]
        path = folder / f"{made}.gguf"
        files[role] = path if path.exists() else sparse.write(path, maker(), kind)
    wanted = needs(check_file_set(ModelFiles(row["model"], MappingProxyType(files), None)), row["size"], row["size"])
    assert wanted is not None
    assert row["exit"] == 0
    assert 1.0 <= peak(wanted, row["options"], True).gpu / row["taken"] <= 1.15
