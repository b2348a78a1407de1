"""Bytes added up from several files, with a clock that the test moves."""

from __future__ import annotations

import pytest

from sdrun.core.size import size_text
from sdrun.models.meter import Lines, Meter, Progress, clock_text, describe


class Clock:
    """Seconds since the start."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_time_left() -> None:
    clock, shown = Clock(), list[Progress]()
    meter = Meter(3_000_000, shown.append, clock)
    meter.begin("a", 500_000, 1_000_000)  # from an earlier run: done, but not fetched now
    meter.begin("b", 0, 2_000_000)
    for second in range(1, 6):
        clock.now = second
        meter.advance("b", 100_000)
    last = shown[-1]
    assert (last.name, last.file_done, last.file_total, last.done, last.total) == (
        "b",
        500_000,
        2_000_000,
        1_000_000,
        3_000_000,
    )
    assert last.rate == pytest.approx(100_000)
    assert last.seconds_left == pytest.approx(20)
    assert shown[0].rate == pytest.approx(100_000)


def test_the_speed_is_that_of_the_last_seconds() -> None:
    clock, shown = Clock(), list[Progress]()
    meter = Meter(100_000_000, shown.append, clock)
    meter.begin("a", 0, 100_000_000)
    for second in range(1, 41):
        clock.now = second
        meter.advance("a", 1_000_000 if second <= 20 else 1_000)
    assert shown[-1].rate == pytest.approx(1_000, rel=0.2)


def test_a_quick_file_does_not_hide_a_slow_one() -> None:
    shown = list[Progress]()
    meter = Meter(200, shown.append, Clock())
    meter.begin("a", 0, 100)
    meter.begin("b", 0, 100)
    for _ in range(50):
        meter.advance("a", 1)
        meter.advance("b", 1)
    assert [progress.name for progress in shown] == ["a", "b"]
    meter.advance("b", 50)  # the end is always told
    assert shown[-1].file_done == 100


def test_bytes_that_are_fetched_again_are_taken_back() -> None:
    shown = list[Progress]()
    meter = Meter(100, shown.append, Clock())
    meter.begin("a", 0, 100)
    meter.advance("a", 60)
    meter.advance("a", -60)
    meter.advance("a", 100)
    assert shown[-1].done == 100
    meter.begin("a", 0, 100)  # all of it again
    meter.advance("a", 100)
    assert shown[-1].done == 100


def test_lines() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    for done in range(0, 101, 5):
        lines(Progress("fetching", "a", done, 100, done, 100, None, None))
    lines(Progress("checking", "a", 50, 100, 100, 100, None, None))
    lines(Progress("checking", "a", 100, 100, 100, 100, None, None))
    assert [line.split()[0] for line in said] == [*(f"{share}%" for share in range(10, 101, 10)), "checking"]


def test_words() -> None:
    progress = Progress("fetching", "a", 1, 2, 2_700_000_000, 6_770_707_360, 41_200_000.0, 98.8)
    assert describe(progress) == " 39%  2.7 GB of 6.8 GB  41.2 MB/s  1:39 left"
    assert describe(Progress("fetching", "a", 0, 0, 0, 0, None, None)) == "  0%  0 bytes of 0 bytes"
    assert [clock_text(seconds) for seconds in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (17, "17 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (6_770_707_360, "6.8 GB"),
        (18_469_065_052, "18.5 GB"),
        (10**16, "10000 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text
