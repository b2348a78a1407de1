"""Differences of pictures, and what follows from probes that passed and failed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from sdrun.core.selftest import Backend, Difference, Probe, Reading, Suite, deduce, difference

NONE = Difference(0, 0)
BOUND = Difference(1, 4)


def flat(width: int, height: int, value: int) -> list[bytes]:
    return [bytes([value]) * (3 * width)] * height


def probe(name: str, *families: str) -> Probe:
    return Probe(
        name, name, {"cpu": frozenset(families), "cuda": frozenset(families)}, f"{name}.png", {"cpu": BOUND, "cuda": BOUND}
    )


def reading(name: str, passed: bool, *families: str, backend: Backend = "cpu") -> Reading:
    return Reading(probe(name, *families), backend, NONE if passed else Difference(40, 60))


def test_equal_pictures_do_not_differ() -> None:
    assert difference(flat(40, 20, 7), flat(40, 20, 7)) == NONE


def test_the_mean_is_over_all_values_and_the_worst_over_a_square() -> None:
    other = [bytearray(row) for row in flat(32, 32, 100)]
    for y in range(16, 32):
        other[y][: 16 * 3] = bytes([130]) * 48  # one of the four squares, 30 levels brighter
    assert difference(flat(32, 32, 100), [bytes(row) for row in other]) == Difference(7.5, 30)


def test_sides_that_are_no_multiple_of_a_square() -> None:
    other = [bytearray(row) for row in flat(20, 18, 0)]
    other[17][19 * 3 : 20 * 3] = b"\x08\x08\x08"  # in a square of 4 x 2 pixels
    found = difference(flat(20, 18, 0), [bytes(row) for row in other])
    assert found.worst == 1
    assert found.mean == pytest.approx(24 / (20 * 18 * 3))


def test_the_difference_is_the_same_both_ways_and_agrees_with_plain_arithmetic() -> None:
    rng = random.Random(1)
    one, other = ([rng.randbytes(3 * 33) for _ in range(17)] for _ in range(2))
    gaps = [abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    assert difference(one, other) == difference(other, one)
    assert difference(one, other).mean == pytest.approx(sum(gaps) / len(gaps))


@pytest.mark.parametrize(("one", "other"), [([], []), (flat(2, 2, 0), flat(2, 3, 0)), (flat(2, 2, 0), flat(3, 2, 0))])
def test_pictures_of_two_sizes_are_not_compared(one: Sequence[bytes], other: Sequence[bytes]) -> None:
    with pytest.raises(ValueError, match="not of one size"):
        difference(one, other)


def test_both_bounds_count() -> None:
    assert Difference(1, 4).within(BOUND)
    assert not Difference(1.01, 0).within(BOUND)
    assert not Difference(0, 4.01).within(BOUND)


def test_a_probe_without_a_picture_has_not_passed() -> None:
    assert not Reading(probe("a", "x"), "cpu", None, "aborted").passed


def test_bounds_and_families_are_those_of_the_backend() -> None:
    one = Probe(
        "a", "a", {"cpu": frozenset("x"), "cuda": frozenset("xy")}, "a.png", {"cpu": NONE, "cuda": BOUND}, ("--type", "f16")
    )
    on_cpu, on_gpu = (Reading(one, backend, Difference(1, 1)) for backend in ("cpu", "cuda"))
    assert (on_cpu.passed, on_gpu.passed) == (False, True)
    assert (on_cpu.exercised, on_gpu.exercised) == (frozenset("x"), frozenset("xy"))


def test_all_passed() -> None:
    finding = deduce([reading("a", True, "x"), reading("b", True, "x", "y")])
    assert finding.sound
    assert (finding.off, finding.suspects, finding.cleared, finding.unknown) == ((), (), ("x", "y"), ())


def test_the_only_family_that_nothing_cleared_is_off() -> None:
    finding = deduce([reading("a", True, "x"), reading("b", False, "x", "y")])
    assert not finding.sound
    assert (finding.off, finding.suspects, finding.cleared) == (("y",), (), ("x",))


def test_what_one_cause_explains_says_nothing_about_the_rest() -> None:
    finding = deduce([reading("a", True, "x"), reading("b", False, "x", "y"), reading("c", False, "y", "z")])
    assert (finding.off, finding.unknown, finding.suspects) == (("y",), ("z",), ())


def test_of_several_possible_causes_those_that_explain_everything_are_suspects() -> None:
    finding = deduce([reading("a", False, "x", "y"), reading("b", False, "y", "z"), reading("c", False, "y", "w")])
    assert (finding.off, finding.suspects, finding.unknown) == ((), ("y",), ("x", "z", "w"))


def test_where_no_single_cause_explains_everything_all_are_suspects() -> None:
    finding = deduce([reading("a", False, "x", "y"), reading("b", False, "z", "w")])
    assert (finding.off, finding.suspects) == ((), ("x", "y", "w", "z"))


def test_two_causes_at_once() -> None:
    finding = deduce([reading("a", True, "x"), reading("b", False, "x", "y"), reading("c", False, "x", "z")])
    assert finding.off == ("y", "z")


def test_a_failure_among_families_that_all_passed_is_a_puzzle() -> None:
    finding = deduce([reading("a", True, "x"), reading("b", True, "y"), reading("c", False, "x", "y")])
    assert (finding.off, finding.suspects, finding.puzzling) == ((), (), ("c",))
    assert not finding.sound


@pytest.mark.parametrize(
    ("engine", "words"), [("e1", ""), ("e1-pruned", ""), ("e2", "the image has e2"), ("", "the image has another")]
)
def test_pictures_of_one_engine_say_nothing_about_another(engine: str, words: str) -> None:
    suite = Suite("m", "p", 1, 64, 1, {}, (), {"engine": "e1"})
    assert suite.stranger(engine).endswith(words)
    assert bool(suite.stranger(engine)) == bool(words)


def test_nothing_drawn_says_nothing() -> None:
    assert deduce([]).sound
