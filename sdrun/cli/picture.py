"""A picture in the terminal: two pixels a character, the upper as the colour of a half block, the lower as its ground."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sdrun.cli.console import Console, say
from sdrun.launch.png import BadPicture, Pixels, pixels_of

HALF_BLOCK = "▀"


def show_picture(path: Path, console: Console) -> None:
    """Draws the picture on stderr (stdout is for the path), as wide as the terminal and not wider than the picture."""
    if not sys.stderr.isatty():
        console.note("--show: stderr is no terminal, so the picture is not drawn")
        return
    if os.environ.get("NO_COLOR"):
        console.note("--show: NO_COLOR is set, so the picture is not drawn")
        return
    try:
        pixels = pixels_of(path.read_bytes())
    except (BadPicture, OSError) as fault:
        console.note(f"--show: {path} cannot be drawn: {fault}")
        return
    columns, lines = os.get_terminal_size(sys.stderr.fileno())
    say(half_blocks(pixels, max(1, columns - 1), max(1, lines - 2)))


def half_blocks(pixels: Pixels, columns: int, lines: int) -> str:
    """The picture in at most that many columns and lines, its proportions kept; each cell shows the mean of its pixels."""
    scale = min(columns / pixels.width, 2 * lines / pixels.height, 1)
    width, height = max(1, int(pixels.width * scale)), max(2, int(pixels.height * scale) // 2 * 2)
    cells = [[_mean(pixels, x, y, width, height) for x in range(width)] for y in range(height)]
    drawn = []
    for upper, lower in zip(cells[::2], cells[1::2], strict=True):
        row = (
            f"\x1b[38;2;{';'.join(map(str, over))};48;2;{';'.join(map(str, under))}m{HALF_BLOCK}"
            for over, under in zip(upper, lower, strict=True)
        )
        drawn.append("".join(row) + "\x1b[0m")
    return "\n".join(drawn)


def _mean(pixels: Pixels, x: int, y: int, width: int, height: int) -> tuple[int, int, int]:
    left, right = x * pixels.width // width, max((x + 1) * pixels.width // width, x * pixels.width // width + 1)
    top, bottom = y * pixels.height // height, max((y + 1) * pixels.height // height, y * pixels.height // height + 1)
    rows = [row[3 * left : 3 * right] for row in pixels.rows[top:bottom]]
    count = len(rows) * (right - left)
    red, green, blue = (sum(sum(row[channel::3]) for row in rows) // count for channel in range(3))
    return red, green, blue
