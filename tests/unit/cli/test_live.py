"""What is said while the engine works, and a picture drawn with characters."""

from __future__ import annotations

import re

import pytest

from sdrun.cli.console import Console
from sdrun.cli.live import Lines, PullProgress, Raw, Silent, clock, describe, display
from sdrun.cli.picture import HALF_BLOCK, half_blocks
from sdrun.launch.png import Pixels
from sdrun.launch.progress import Progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (7, "0:07"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03"), (360000, "100:00:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_one_line_a_stage_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Console())
    for state in (
        Progress("loading", 1, 9, "3MB/s"),
        Progress("loading", 2, 9, "3MB/s"),
        Progress("sampling"),
        *(Progress("sampling", step, 4, "1it/s", 4.0 - step, picture, 2) for picture in (1, 2) for step in (1, 2, 3, 4)),
        Progress("saving"),
    ):
        lines.progress(state)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["loading weights", "drawing 1/2, 4 steps", "drawing 2/2, 4 steps", "saving"]


def test_which_display() -> None:
    assert type(display(Console(quiet=True))) is Silent
    assert type(display(Console(verbose=True))) is Raw
    assert type(display(Console())) is Lines  # stderr is no terminal under the tests
    assert describe(Progress("decoding", pictures=3)) == "decoding"


def test_a_pull_is_told_in_tenths(capsys: pytest.CaptureFixture[str]) -> None:
    pull = PullProgress(Console())
    for done in range(101):
        pull.show("a", done * 1_000_000, 100_000_000)
        pull.show("b", done * 1_000_000, 100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 10
    assert lines[-1] == "pulled 200 of 200 MB"


def test_half_blocks_show_two_pixels_a_character() -> None:
    drawn = half_blocks(Pixels(2, 2, (bytes([255, 0, 0, 0, 255, 0]), bytes([0, 0, 255, 9, 9, 9]))), 80, 24)
    assert drawn.count(HALF_BLOCK) == 2
    assert "38;2;255;0;0;48;2;0;0;255m" in drawn
    assert "38;2;0;255;0;48;2;9;9;9m" in drawn


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 500), (500, 3), (64, 64), (1, 2)])
def test_any_picture_fits(width: int, height: int) -> None:
    rows = tuple(bytes([7, 8, 9]) * width for _ in range(height))
    lines = half_blocks(Pixels(width, height, rows), 30, 10).splitlines()
    assert 1 <= len(lines) <= 10
    assert all(1 <= line.count(HALF_BLOCK) <= 30 for line in lines)
    assert set(re.findall(r"[34]8;2;([0-9;]+?)[;m](?=48|▀)", "".join(lines))) <= {"7;8;9"}
