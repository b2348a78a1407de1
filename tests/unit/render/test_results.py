"""Tables of measurements: what is recorded, in Markdown; and a clear word where something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdrun.render.readme import blocks, updated
from sdrun.render.results import read_results, result_names, result_table

PROFILE = {"sdrun, until the container is made": 0.31, "in all": 2.6}
MACHINE = {
    "device": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "driver": "580.159.04",
    "runtime": "docker 26.1.5",
}


def series(generate: float, container: float, bare: float) -> dict[str, Any]:
    """A state's figures as bench/cold_start.py writes them."""
    medians = {"generate": generate, "container": container, "bare": bare}
    return {
        **{name: {"median_s": value, "runs_s": [value]} for name, value in medians.items()},
        "container_to_bare": round(container / bare, 3),
        "profile_s": PROFILE,
    }


def cold_start(**flux: Any) -> dict[str, Any]:
    """A result with the model flux."""
    figures = {"image": "cu124-sm90", "models": {"flux": {"what": "", **flux}}}
    return {"measured": "cold_start", "date": "2026-11-23", "machine": MACHINE, "figures": figures}


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_cold_start_with_all_parts() -> None:
    compiled = {"jit": {"median_s": 41.2}, "jit_again": {"median_s": 2.5}}
    found = cold_start(warm=series(2.6, 2.2, 2.1), compiled=compiled, dropped=series(5.0, 4.5, 4.2))
    text = result_table("cold-start", {"cold_start_h100": found})
    assert "NVIDIA H100 80GB HBM3, driver 580.159.04, docker 26.1.5, 2026-11-23" in text
    assert rows(text) == [
        ["flux", "warm", "2.60", "2.20", "2.10", "1.05", "41.2", "2.50", "15.8"],
        ["flux", "dropped", "5.00", "4.50", "4.20", "1.07", "", "", ""],
    ]
    assert rows(result_table("launch", {"cold_start_h100": found}))[-1] == ["in all", "2.60"]


@pytest.mark.parametrize("lacking", [{}, {"dropped": {"skipped": "root alone may"}}, {"compiled": {"failed": "exit 1"}}])
def test_cold_start_with_what_there_is(lacking: dict[str, Any]) -> None:
    found = cold_start(warm=series(2.6, 2.2, 2.1), **lacking)
    assert rows(result_table("cold-start", {"x": found})) == [
        ["flux", "warm", "2.60", "2.20", "2.10", "1.05", "", "", ""],
    ]


def test_each_device_has_its_table() -> None:
    one, other = cold_start(warm=series(2.6, 2.2, 2.1)), cold_start(warm=series(3, 2, 2))
    other["machine"] = {**MACHINE, "device": "NVIDIA L4"}
    text = result_table("cold-start", {"cold_start_l4": other, "cold_start_h100": one})
    assert [text.index("H100") < text.index("L4"), text.count("| flux | warm |")] == [True, 2]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no result of cold_start"):
        result_table("cold-start", {})
    with pytest.raises(ValueError, match="table sizes cannot be written"):
        result_table("sizes", {"builds": {"figures": {}}})


def written(name: str, results: dict[str, Any]) -> str:
    """The table, or what it lacks."""
    try:
        return result_table(name, results)
    except ValueError as lacking:
        return str(lacking)


def test_every_table_can_be_written_or_lacks_a_result() -> None:
    """Nothing else may be wrong with what is recorded."""
    results = dict(read_results(Path(__file__).parents[3] / "bench" / "results"))
    texts = {name: written(name, results) for name in result_names()}
    assert [name for name, text in texts.items() if not text.endswith("\n") and "holds no result of" not in text] == []


def test_results_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"measured": "a"}))
    (tmp_path / "list.json").write_text("[]")
    assert read_results(tmp_path) == {"a": {"measured": "a"}}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json is no JSON"):
        read_results(tmp_path)


def test_blocks_are_written_and_the_rest_is_left() -> None:
    begin = "<!-- targets: written by `make readme` from images/ -->\n"
    text = f"one\n{begin}old\n<!-- targets: end -->\ntwo\n"
    assert updated(text, lambda name: f"{name}\n") == text.replace("old", "targets")
    assert (blocks(text), blocks("one\n")) == (["targets"], [])


def test_failures() -> None:
    right = {"before": {"resolve": {"status": "ok"}}, "after": {"flux": {"exit": 0, "seconds": 2.2}}}
    wrong = {
        "before": {
            "resolve": {"id": "arch-mismatch", "exit": 4},
            "generate": {"exit": 4, "seconds": 0.4},
            "guard": {"exit": 4},
        },
        "after": {
            "flux": {"exit": 0, "seconds": 43.7, "verdict": None},
            "flux-fa": {"exit": 134, "no_device_code_lines": 224, "verdict": {"id": "arch-mismatch"}},
        },
    }
    images = {"right": {"stands_for": "made for it", **right}, "75ptx-86": {"stands_for": "two archs", **wrong}}
    found = {"measured": "failures", "date": "2026-11-23", "machine": MACHINE, "figures": {"images": images}}
    said = rows(result_table("failures", {"failures_h100": found}))
    assert said[0][:2] == ["made for it", "ok"]
    assert said[1] == [
        *("two archs", "arch-mismatch", "4 in 0.4 s", "4"),
        *("0 in 43.7 s; flash attention 134", "224", "arch-mismatch"),
    ]


def test_speed() -> None:
    def row(kind: str, size: int, engine: str, median: float, options: str = "") -> dict[str, Any]:
        rate = {"median": median, "least": median, "most": median}
        return {"type": kind, "size": size, "engine": engine, "options": options, "env": {}, "steps_per_s": rate}

    measured = [row("q4_0", 512, "shipped", 4), row("q4_0", 512, "default", 3.5), row("f16", 1024, "shipped", 1)]
    measured += [row("q4_0", 512, "shipped", 9, "--diffusion-fa"), {**row("f16", 512, "shipped", 9), "env": {"A": "1"}}]
    found = {"measured": "speed", "date": "2026-11-23", "machine": MACHINE, "figures": {"rows": measured}}
    assert rows(result_table("speed", {"speed": found})) == [
        ["Q4_0", "512 x 512", "4.00", "3.50"],
        ["F16", "1024 x 1024", "1.00", ""],
    ]


def test_overhead_and_startup() -> None:
    one = {"median_s": 1.0}
    figures = {"sdrun": {"median_s": 1.5}, "container_command": one, "added": {"median_s": 0.5}, "added_net": None}
    figures["processor"] = {"sdrun": {"median_s": 0.4}, "container_command": {"median_s": 0.1}}  # type: ignore[dict-item]
    machine = {"processor": "AMD EPYC", "cores": 2}
    found = {"measured": "overhead", "date": "2026-11-23", "machine": machine, "figures": figures}
    assert rows(result_table("overhead", {"overhead": found})) == [
        ["AMD EPYC, 2 cores", "1.50 s", "1.00 s", "0.50 s", "", "0.30 s"]
    ]
    pair = {"seconds": 0.13, "baseline_seconds": 0.14, "ratio": 0.929}
    started = {"figures": {"sdrun --help / empty --help": pair, "ramalama": "0.25"}}
    assert rows(result_table("startup", {"startup": started})) == [["sdrun --help / empty --help", "0.13", "0.14", "0.93"]]
