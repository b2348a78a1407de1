"""images/selftest.yaml: the suite that ships can tell any one family that is off, and a bad file is told with its lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdrun.catalog.models import models
from sdrun.catalog.selftest import pictures_dir, selftest
from sdrun.core.selftest import BACKENDS, Backend, Difference, Reading, deduce
from sdrun.errors import BadConfiguration
from sdrun.launch.png import pixels_of

GOOD, BAD = Difference(0, 0), Difference(99, 99)
SUITE = selftest()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", SUITE.families)
def test_any_family_that_is_off_is_named_and_no_other(family: str, backend: Backend) -> None:
    readings = [Reading(probe, backend, BAD if family in probe.exercises[backend] else GOOD) for probe in SUITE.probes]
    finding = deduce(readings)
    assert (*finding.off, *finding.suspects) == (family,)
    assert not finding.puzzling


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sound_engine_clears_every_family(backend: Backend) -> None:
    finding = deduce([Reading(probe, backend, GOOD) for probe in SUITE.probes])
    assert finding.sound
    assert set(finding.cleared) == set(SUITE.families)


def test_what_the_suite_needs_is_there() -> None:
    assert SUITE.model in models()
    for probe in SUITE.probes:
        for name in {probe.picture, probe.init} - {None}:
            pixels = pixels_of((pictures_dir() / str(name)).read_bytes())
            assert (pixels.width, pixels.height) == (SUITE.size, SUITE.size)
            shades = {value for row in pixels.rows for value in row}
            assert len(shades) > 20, "a flat picture would prove nothing"


def test_the_recorded_pictures_say_where_they_come_from() -> None:
    assert set(SUITE.recorded) >= {"engine", "image", "processor", "date"}
    assert all(SUITE.recorded.values())


def test_the_short_form_draws_the_model_as_it_ships() -> None:
    quick = [probe for probe in SUITE.probes if probe.quick]
    assert [probe.arguments for probe in quick] == [()]


RESULTS = Path(__file__).parents[3] / "bench" / "results"


@pytest.mark.parametrize("file", sorted(RESULTS.glob("selftest_*.json")), ids=lambda path: path.stem)
def test_every_sound_engine_that_was_measured_is_within_the_bounds_and_half_of_them_to_spare(file: Path) -> None:
    probes = json.loads(file.read_text(encoding="utf-8"))["figures"]["probes"]
    assert set(probes) == {probe.name for probe in SUITE.probes}
    for probe in SUITE.probes:
        found, bounds = probes[probe.name], probe.bounds[probes[probe.name]["backend"]]
        assert 2 * found["mean"] <= bounds.mean
        assert 2 * found["worst"] <= bounds.worst
        assert found["twice"] == {"mean": 0, "worst": 0}


def test_the_plan_for_machines_without_a_container_runtime_is_up_to_date(tmp_path: Path) -> None:
    bench = RESULTS.parent
    argv = [sys.executable, str(bench / "selftest.py"), "plan", str(tmp_path / "plan.json")]
    subprocess.run(argv, check=True)
    assert (bench / "selftest_plan.json").read_text() == (tmp_path / "plan.json").read_text()


def test_every_engine_that_was_broken_on_purpose_was_told_for_what_it_is() -> None:
    engines = json.loads((RESULTS / "broken_builds.json").read_text(encoding="utf-8"))["figures"]
    assert len({engine["family"] for engine in engines.values()}) >= 4
    for engine in engines.values():
        assert engine["found"] == [engine["family"]]


TEXT = """\
model: tiny:q4_0
prompt: a circle
seed: 1
size: 64
steps: 1
recorded: {engine: "x"}
families:
  - {name: one, title: the first}
  - {name: two, title: the second, avoid: "Leave it out."}
probes:
  - name: a
    title: first
    exercises: [one]
    exercises_on: {cuda: [two]}
    init: s.png
    strength: 0.5
    picture: a.png
    bounds: {cpu: {mean: 0, worst: 1.5}, cuda: {mean: 1, worst: 2}}
    quick: true
"""


def read(folder: Path, text: str) -> Path:
    path = folder / "selftest.yaml"
    path.write_text(text, encoding="utf-8")
    selftest.cache_clear()
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    suite = selftest(read(tmp_path, TEXT))
    (probe,) = suite.probes
    assert probe.exercises == {"cpu": {"one"}, "cuda": {"one", "two"}}
    assert probe.bounds == {"cpu": Difference(0, 1.5), "cuda": Difference(1, 2)}
    assert (probe.init, probe.strength, probe.arguments, probe.quick) == ("s.png", 0.5, (), True)
    assert suite.families["two"].avoid == "Leave it out."


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("exercises: [one]", "exercises: [three]", "'three' does not stand under families"),
        ("cuda: [two]", "rocm: [two]", "is no backend"),
        ("strength: 0.5", "strength: 1.5", "must be from 0 to 1"),
        ("picture: a.png", "picture: ../a.png", "must be the plain name of a PNG file"),
        ("picture: a.png", "picture: a.jpg", "must be the plain name of a PNG file"),
        ("mean: 0,", "mean: -1,", "must be a number from 0 to 255"),
        ("mean: 0,", "mean: true,", "must be a number from 0 to 255"),
        ("cpu: {mean: 0, worst: 1.5}, ", "", "bounds.cpu: is missing"),
        ("seed: 1", "seed: -1", "must be at least 0"),
        ("quick: true", "quick: false", "none is quick"),
        ("    exercises_on: {cuda: [two]}\n", "", "no probe exercises two"),
        ("title: first", "titel: first", "is not a key here"),
    ],
)
def test_a_bad_file(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in TEXT
    with pytest.raises(BadConfiguration, match=r"selftest\.yaml:[0-9]+: ") as caught:
        selftest(read(tmp_path, TEXT.replace(old, new, 1)))
    assert reason in caught.value.message


def test_two_probes_of_one_name(tmp_path: Path) -> None:
    double = TEXT + TEXT[TEXT.index("  - name: a") :]
    with pytest.raises(BadConfiguration, match="two have one name"):
        selftest(read(tmp_path, double))
