"""bench/failures.py without a GPU: its table is about the images there are, and what comes otherwise than in it is told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
TRAP = "ERROR: CUDA kernel f has no device code compatible with CUDA arch 750. ggml-cuda.cu was compiled for: 750,860\n"
BLAMED = "[ERROR] ggml_extend.hpp:69   - CUDA error: an internal operation failed\n.../ggml-cuda.cu:98: CUDA error\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        return importlib.import_module("failures")
    finally:
        sys.path[:] = before


@pytest.fixture
def bench(script: ModuleType, tmp_path: Path) -> object:
    (tmp_path / "state").mkdir()
    return script.Bench({}, "", "NVIDIA H100 80GB HBM3", "9.0", tmp_path)


def test_the_table_is_about_the_images_and_parts_there_are(script: ModuleType) -> None:
    assert set(script.PLAN["expected"]) == {"right", *(control.name for control in (*script.CONTROLS, *script.FURTHER))}
    for name, parts in script.PLAN["expected"].items():
        pretends = any(control.name == name and control.pretend for control in (*script.CONTROLS, *script.FURTHER))
        said = ["inspect", "resolve", "no-jit", "generate", "guard", *(["overridden"] if pretends else [])]
        assert list(parts) == [*said, *script.DRAWINGS]
        assert all(code == "failed" or isinstance(code, int) for code, *_ in parts.values())
    assert {drawing.model for drawing in script.DRAWINGS.values()} <= set(script.MODELS)


def test_a_log_is_read_as_sdrun_reads_it(bench: object) -> None:
    facts = bench.read((TRAP * 224 + BLAMED).encode(), 134, on_gpu=True)
    assert facts["no_device_code_lines"] == 224
    assert facts["verdict"]["id"] == "host-device-mismatch"
    assert facts["last_errors"] == BLAMED.splitlines()
    assert bench.read(b"", 0, on_gpu=False) == {"no_device_code_lines": 0, "verdict": None, "last_errors": [], "text": ""}


def test_what_comes_otherwise_is_told(script: ModuleType) -> None:
    came = {part: {"exit": code} for part, (code, *_) in script.PLAN["expected"]["right"].items()}
    images = {"right": {"before": {}, "after": came}, "processor": {"after": {"flux": {"exit": 1}}}}
    assert script.surprises(images) == []
    came["flux-fa"] = {"exit": 134, "verdict": {"id": "kernel-missing"}}
    del came["guard"]
    assert script.surprises(images) == [
        "right, guard: expected 0, came None",
        "right, flux-fa: expected 0, came 134 kernel-missing",
    ]


def test_a_failure_of_any_kind_may_be_expected(script: ModuleType) -> None:
    other = {part: {"exit": code, "id": (ids or [""])[0]} for part, (code, *ids) in script.PLAN["expected"]["ptx80"].items()}
    other["disabled"] = {"exit": 134, "verdict": {"id": "jit-forbidden"}}
    assert script.surprises({"ptx80": {"after": other}}) == []
    other["disabled"] = {"exit": 0, "verdict": None}
    other["no-jit"]["id"] = "no-gpu"
    assert script.surprises({"ptx80": {"after": other}}) == [
        "ptx80, no-jit: expected 4 jit-forbidden, came 4 no-gpu",
        "ptx80, disabled: expected failed, came 0",
    ]


def test_a_part_that_fails_is_recorded_and_shown(script: ModuleType, bench: object) -> None:
    drawing = script.DRAWINGS["shapes"]
    lost = script.attempt(lambda: script.draw(bench, "right", "no-image", drawing, bench.work / "cache"))
    assert lost == {"failed": "KeyError: 'shapes'"}  # this bench has no folder of that model
    shown = script.table(
        {"right": {"before": {"guard": {"exit": 0, "seconds": 0.5, "verdict": None}}, "after": {"shapes": lost}}}
    )
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [["right", "guard"], ["right", "shapes"]]
    assert shown.endswith("KeyError: 'shapes'")


def test_pictures_are_told_apart(script: ModuleType, tmp_path: Path) -> None:
    paths = [tmp_path / "one.png", tmp_path / "other.png"]
    for path, dot in zip(paths, (0, 255), strict=True):
        picture = script.Image.new("RGB", (32, 16), (10, 20, 30))
        picture.putpixel((20, 3), (10 + dot // 2, 20, 30))
        picture.save(path)
    assert script.apart(*paths) == {
        "mean": round(127 / (32 * 16 * 3), 3),
        "worst_square": round(127 / (16 * 16 * 3), 2),
        "largest": 127,
    }
    assert script.apart(paths[0], paths[0])["largest"] == 0
