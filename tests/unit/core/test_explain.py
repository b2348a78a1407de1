"""`explain`: the same answer as `resolve`, every candidate in lines short enough for a table of 80 columns, and the gain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from resolving.samples import CPU, DOCKER, gpu, host, image, index
from resolving.strategies import cases, policies

from sdrun.core import host as host_facts
from sdrun.core import index as index_facts
from sdrun.core.explain import explain
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve

ROWS = index(
    image("cu130-sm89", "89"),
    image("cu124-sm89", "89"),
    image("cu124-sm86", "86"),
    image("cu124-sm80", "80"),
    image("cu124-multi", "75 89", "75"),
    image("cu118-ptx", "", "80"),
    image("cu128-sm89", "89", zstd=True),
    image("cu130-sm120", "120a"),
    image("cu130-sm121", "121a", platform="linux/arm64"),
    CPU,
)


def test_the_winner_stands_on_top_then_runners_up_then_rejected(facts) -> None:
    told = explain(host(gpu("8.9"), driver_version="535.54.03"), ROWS, Policy(), facts)
    assert [(row.target, row.verdict, row.code_path, row.why) for row in told.candidates] == [
        ("cu124-sm89", "taken", "sass-exact", "machine code for this GPU, CUDA 12.4"),
        ("cu124-multi", "runner-up", "sass-exact", "holds more archs"),
        ("cu124-sm86", "runner-up", "sass-compatible", "sass-compatible comes after sass-exact"),
        ("cu124-sm80", "runner-up", "sass-compatible", "sass-compatible comes after sass-exact"),
        ("cu118-ptx", "runner-up", "ptx-jit", "ptx-jit comes after sass-exact"),
        ("cu130-sm89", "rejected", None, "needs driver 580.65.06, has 535.54.03"),
        ("cu128-sm89", "rejected", None, "zstd code needs driver 550.54.14"),
        ("cpu", "rejected", None, "runs on the CPU, needs --allow-cpu"),
        ("cu130-sm120", "rejected", None, "nothing for 8.9: sm_120a"),
        ("cu130-sm121", "rejected", None, "built for linux/arm64, not linux/amd64"),
    ]
    assert told.gain == "NVIDIA driver 580.65.06 or newer would run cu130-sm89 by the same code path."


def test_nothing_to_gain_nothing_said(facts) -> None:
    assert explain(host(gpu("8.9")), ROWS, Policy(), facts).gain is None


def test_a_better_code_path_is_a_gain(facts) -> None:
    rows = index(image("cu118-ptx", "", "80"), image("cu128-sm89", "89", zstd=True), image("cu130-sm89", "89"))
    told = explain(host(gpu("8.9"), driver_version="525.60.13"), rows, Policy(), facts)
    assert told.candidates[0].why == "PTX 80, compiled on first run"
    assert told.gain == "NVIDIA driver 580.65.06 or newer would run cu130-sm89 by sass-exact, not ptx-jit."


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (image("cu130-a", "86"), image("cu124-b", "80"), "arch 80 is below 86"),
        (image("cu130-a", "89"), image("cu124-b", "89"), "CUDA 12.4 is older than 13.0"),
        (image("cu130-a", "89"), image("cu130-b", "89"), "equal, target id comes later"),
        (image("cu130-a", "86"), CPU, "only without a GPU image"),
    ],
)
def test_why_a_runner_up_came_second(facts, better, worse, why) -> None:
    told = explain(host(gpu("8.9")), index(worse, better), Policy(allow_cpu=True), facts)
    assert told.candidates[1].why == why


def test_compatible_code_is_named(facts) -> None:
    told = explain(host(gpu("8.9")), index(image("cu130-sm86", "86")), Policy(), facts)
    assert told.candidates[0].why == "machine code sm_86, CUDA 13.0"


def test_the_cpu_on_top(facts) -> None:
    told = explain(host(gpu("7.0")), ROWS, Policy(allow_cpu=True), facts)
    assert (told.candidates[0].target, told.candidates[0].verdict, told.candidates[0].why) == (
        "cpu", "taken", "no GPU image runs here",
    )  # fmt: skip
    assert told.gain is None


def test_a_refusal_lists_all_and_says_what_the_driver_would_let_run(facts) -> None:
    told = explain(host(gpu("8.9"), driver_version="390.157"), ROWS, Policy(), facts)
    assert {row.verdict for row in told.candidates} == {"rejected"}
    assert len(told.candidates) == len(ROWS.images)
    assert told.gain == "NVIDIA driver 520.61.05 or newer would run cu118-ptx by ptx-jit."
    assert explain(host(gpu("7.0")), ROWS, Policy(), facts).gain is None


def test_images_out_of_reach_are_listed_too(facts) -> None:
    bare = DOCKER | {"cdi_devices": [], "nvidia_runtime": False}
    told = explain(host(gpu("8.9"), runtime=bare), ROWS, Policy(), facts)
    assert len(told.candidates) == len(ROWS.images)
    assert told.candidates[0].why == "runtime cannot reach the GPU"
    assert told.candidates[0].code_path == "sass-exact"


@settings(max_examples=300, deadline=None)
@given(cases(), policies)
def test_explain_answers_as_resolve_and_fits_the_table(facts, case, policy) -> None:
    machine, rows = host_facts.from_json(case[0]), index_facts.from_json(case[1])
    told = explain(machine, rows, policy, facts)
    assert told.answer == resolve(machine, rows, policy, facts)
    assert all(len(row.why) <= 44 and "\n" not in row.why for row in told.candidates)
    assert [row.verdict for row in told.candidates].count("taken") == (hasattr(told.answer, "code_path"))
