"""Rules 1, 2, 3, 5 and 6: what loads on what, what the engine believes, and which of several images is better."""

from __future__ import annotations

import pytest
from resolving.samples import CPU, gpu, host, image, index

from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve


def path(facts, cc: str, sass: str, ptx: str = "", *, toolkit: str = "13.4", **more) -> str:
    """The code path of a lone image on a lone GPU under a driver that speaks everything, or the rejection's reason."""
    machine = host(gpu(cc), **({"driver_version": "615.71", "cuda_driver": "13.4"} | more))
    answer = resolve(machine, index(image("x", sass, ptx, toolkit=toolkit)), Policy(), facts)
    return answer.code_path if isinstance(answer, Plan) else answer.rejected[0].reason


NO, EXACT, NEAR, JIT, MISMATCH = "no-code-for-capability", "sass-exact", "sass-compatible", "ptx-jit", "arch-mismatch"


@pytest.mark.parametrize(
    ("cc", "sass", "expected"),
    [
        ("8.9", "89", EXACT),
        ("8.9", "80", NEAR),
        ("8.9", "86", NEAR),
        ("8.6", "89", NO),
        ("8.0", "86", NO),
        ("9.0", "89", NO),
        ("9.0", "80", NO),
        ("7.5", "70", NEAR),
        ("6.1", "60", NEAR),
        ("6.0", "61", NO),
        ("5.2", "50", NEAR),
        ("9.0", "90a", EXACT),
        ("10.0", "90a", NO),
        ("10.3", "100", NEAR),
        ("10.3", "100a", NO),
        ("10.3", "100f", NEAR),
        ("10.7", "100f", NEAR),
        ("10.7", "103f", NEAR),
        ("10.0", "103f", NO),
        ("10.3", "103f", EXACT),
        ("11.0", "100f", NO),
        ("12.0", "100f", NO),
        ("12.0", "100", NO),
        ("12.0", "120a", EXACT),
        ("12.1", "120a", NO),
        ("12.1", "120", NEAR),
        ("12.1", "120f", NEAR),
        ("12.0", "121f", NO),
        ("12.1", "121f", EXACT),
        ("13.0", "130f", EXACT),  # a family nobody has described: its own capability only
        ("13.1", "130f", NO),
        ("12.5", "120f", NO),
        ("12.5", "120", NEAR),  # a part nobody has described: plain code of its major runs
    ],
)
def test_rule_2_machine_code(facts, cc, sass, expected) -> None:
    assert path(facts, cc, sass) == expected


@pytest.mark.parametrize(
    ("cc", "sass", "tegra", "expected"),
    [
        ("8.7", "87", "36.4", EXACT),
        ("8.7", "86", "36.4", NO),
        ("8.7", "80", "35.4", NO),
        ("8.7", "86", None, NO),
        ("8.7", "86", "39.0", NEAR),
        ("8.7", "80", "39.2.1", NEAR),
        ("8.7", "86", "38.4", NO),
        ("8.9", "87", None, NO),
        ("8.9", "87", "39", NEAR),
        ("8.8", "86", None, NO),
        ("8.8", "87", "36.4", NEAR),
        ("7.2", "70", "35.4", NO),
        ("7.5", "72", None, NO),
        ("6.2", "61", "32.7", NO),
        ("5.3", "52", "32.7", NO),
        ("5.3", "50", "32.7", NO),
        ("8.6", "80", "36.4", NEAR),  # a desktop GPU in a Jetson box is a desktop GPU
    ],
)
def test_rule_2_desktop_and_jetson_code_do_not_mix_before_jetpack_7_2(facts, cc, sass, tegra, expected) -> None:
    assert path(facts, cc, sass, tegra=tegra) == expected


@pytest.mark.parametrize(
    ("cc", "toolkit", "sass", "ptx", "expected"),
    [
        ("10.1", "12.8", "101", "", EXACT),
        ("10.1", "12.9", "101a", "", EXACT),
        ("10.1", "13.0", "110", "", EXACT),
        ("10.1", "13.0", "110f", "", EXACT),
        ("10.1", "13.0", "", "110", JIT),
        ("10.1", "12.9", "110", "", NO),
        ("10.1", "12.9", "100", "", NO),
        ("11.0", "12.9", "101", "", NO),
        ("11.0", "13.0", "110", "", EXACT),
    ],
)
def test_10_1_is_11_0_for_toolkits_from_13_0_on(facts, cc, toolkit, sass, ptx, expected) -> None:
    assert path(facts, cc, sass, ptx, toolkit=toolkit) == expected


@pytest.mark.parametrize(
    ("cc", "ptx", "expected"),
    [
        ("8.9", "89", JIT),
        ("9.0", "75", JIT),
        ("13.0", "75", JIT),
        ("7.5", "80", NO),
        ("9.0", "90a", NO),
        ("10.0", "90a", NO),
        ("10.3", "100f", JIT),
        ("12.0", "100f", NO),
        ("12.1", "120f", JIT),
        ("12.0", "121f", NO),
        ("8.7", "80", JIT),  # PTX knows no Jetson
    ],
)
def test_rule_3_ptx(facts, cc, ptx, expected) -> None:
    assert path(facts, cc, "", ptx) == expected


@pytest.mark.parametrize(
    ("cc", "sass", "ptx", "expected"),
    [
        ("9.0", "86", "75", MISMATCH),  # the H100 measurement
        ("9.0", "86", "86", JIT),  # the PTX is of the arch the engine believes in
        ("8.9", "86", "75", NEAR),
        ("8.9", "75 86", "80", NEAR),
        ("8.9", "80", "86", MISMATCH),  # machine code 8.0 loads, the engine counts PTX 8.6 as compiled
        ("8.9", "80 86", "75 89", MISMATCH),
        ("9.0", "", "75 80", JIT),
        ("12.1", "120a", "90", MISMATCH),  # 120a counts as 12.0
        ("12.1", "120a 121a", "90", EXACT),
        ("12.0", "120a 121a", "90", EXACT),  # what is above the device is not believed in
        ("9.0", "90a", "80", EXACT),
        ("9.0", "89", "90a", NO),
        ("9.0", "", "75 90a", MISMATCH),
        ("8.9", "80 87", "", MISMATCH),  # Jetson code is counted though it does not load
        ("10.3", "100f 103a", "", EXACT),
        ("10.7", "100f 103a", "", MISMATCH),
        ("6.1", "75 86", "50", JIT),
        ("6.1", "75 86", "", NO),
    ],
)
def test_rule_5_the_engine_must_believe_in_what_is_loaded(facts, cc, sass, ptx, expected) -> None:
    assert path(facts, cc, sass, ptx) == expected


def test_rule_5_holds_whatever_the_driver_says(facts) -> None:
    machine = host(gpu("9.0"), driver_version="390.157")
    answer = resolve(machine, index(image("cu124-x", "86", "75")), Policy(), facts)
    assert isinstance(answer, Refusal)
    assert answer.id == answer.rejected[0].reason == "arch-mismatch"
    assert answer.exit_code == 4
    assert answer.rejected[0].detail == "would load PTX 75, engine expects 86"


def test_rule_1_platform_comes_first(facts) -> None:
    rows = index(
        image("cu130-sm89", "89", platform="linux/arm64"), image("cu999-x", "50", platform="linux/arm64", toolkit="99.9")
    )
    answer = resolve(host(gpu("8.9")), rows, Policy(), facts)
    assert isinstance(answer, Refusal)
    assert (answer.id, answer.exit_code) == ("platform-mismatch", 4)
    assert {row.reason for row in answer.rejected} == {"platform-mismatch"}
    assert answer.message == "The published CUDA images are for linux/arm64 only; this host is linux/amd64."
    assert answer.change.build is not None
    assert answer.change.build.platform == "linux/amd64"


BETTER_FIRST = [
    ("exact before compatible, whatever the toolkit", image("cu118-a", "89"), image("cu130-b", "86")),
    ("compatible before PTX", image("cu118-a", "80"), image("cu130-b", "", "89")),
    ("the highest minor", image("cu118-a", "86"), image("cu130-b", "80")),
    ("the highest PTX", image("cu118-a", "", "86"), image("cu130-b", "", "75")),
    ("the newest toolkit", image("cu130-z", "80 86 89"), image("cu124-a", "89")),
    ("the newest toolkit by number, not by text", image("z", "89", toolkit="12.10"), image("a", "89", toolkit="12.9")),
    ("fewer archs", image("cu130-z", "89"), image("cu130-a", "86 89")),
    ("PTX counts as an arch", image("cu130-z", "89"), image("cu130-a", "89", "75")),
    ("target id", image("cu130-a", "89"), image("cu130-b", "89")),
    ("a GPU before the CPU", image("cu118-z", "", "50"), CPU),
]


@pytest.mark.parametrize(("better", "worse"), [row[1:] for row in BETTER_FIRST], ids=[row[0] for row in BETTER_FIRST])
def test_rule_6_order_of_preference(facts, better, worse) -> None:
    for rows in ((better, worse), (worse, better)):
        answer = resolve(host(gpu("8.9")), index(*rows), Policy(allow_cpu=True), facts)
        assert isinstance(answer, Plan)
        assert answer.target == better["target"]
        assert answer.rejected == ()


def test_rule_6_the_newest_toolkit_that_the_driver_serves_not_the_newest(facts) -> None:
    rows = index(image("cu124-sm89", "89"), image("cu130-sm89", "89"), image("cu118-sm89", "89"))
    answer = resolve(host(gpu("8.9"), driver_version="535.54.03"), rows, Policy(), facts)
    assert isinstance(answer, Plan)
    assert answer.target == "cu124-sm89"
    assert [(row.target, row.reason) for row in answer.rejected] == [("cu130-sm89", "driver-too-old")]


def test_equal_rows_are_told_apart_by_their_reference(facts) -> None:
    first, second = image("cu130-sm89", "89"), image("cu130-sm89", "89") | {"image": "a@sha256:0"}
    for rows in ((first, second), (second, first)):
        answer = resolve(host(gpu("8.9")), index(*rows), Policy(), facts)
        assert isinstance(answer, Plan)
        assert answer.image == "a@sha256:0"
