"""What the engine is doing, read from its standard output while it comes. Pure: text in, states out.

Its lines look like this (CR before a bar, the line's end only after the last one):

    [INFO ] model.cpp:216  - load /models/diffusion/x.gguf using gguf format
      |=============>            | 49/185 - 3.34MB/s
    [INFO ] stable-diffusion.cpp:3401 - generating image: 1/2 - seed 42
      |======>                   | 1/8 - 1.23it/s
    [INFO ] stable-diffusion.cpp:3192 - decoding 2 latents
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal["starting", "loading", "encoding", "sampling", "decoding", "saving"]
STAGES: tuple[Stage, ...] = ("starting", "loading", "encoding", "sampling", "decoding", "saving")

_BAR = re.compile(r"\|[=>\s#]*\|\s*([0-9]{1,9})/([0-9]{1,9}) - ([0-9.]{1,12})(s/it|it/s|[MG]B/s)")
_PICTURE = re.compile(r"- generating image: ([0-9]{1,9})/([0-9]{1,9}) - seed")
_ALIGNED = re.compile(r"- align generation request up [0-9]+x[0-9]+ to ([0-9]{1,6})x([0-9]{1,6})")
_LOG_LINE = re.compile(r"\[(?:INFO |WARN |DEBUG)\] \S+ ?:?[0-9]* *- ")
# The first text of a log line that shows a stage has begun.
_BEGINS: tuple[tuple[str, Stage], ...] = (
    ("loading ", "loading"),
    ("load ", "loading"),
    ("running in ", "encoding"),
    ("generate_image ", "encoding"),
    ("get_learned_condition completed", "sampling"),
    ("decoding ", "decoding"),
    ("save result image", "saving"),
)
_LONGEST_LINE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the engine is. `step` of `steps` in this stage (0 where it does not count); `rate` as the engine says it
    (`1.23it/s`); `seconds_left` for this stage, None where nothing is known; `picture` of `pictures`; `aligned`: the size the
    engine rounded the request up to."""

    stage: Stage = "starting"
    step: int = 0
    steps: int = 0
    rate: str = ""
    seconds_left: float | None = None
    picture: int = 1
    pictures: int = 1
    aligned: tuple[int, int] | None = None


class ProgressReader:
    """Takes standard output in any portions; `state` is the newest."""

    def __init__(self) -> None:
        self.state = Progress()
        self._open = b""

    def feed(self, data: bytes) -> Iterator[Progress]:
        """The states this portion leads to, each different from the one before."""
        *lines, rest = re.split(rb"[\r\n]", self._open + data)
        self._open = rest[-_LONGEST_LINE:]
        bars = [rest] if rest.endswith(b"\x1b[K") else []  # a bar's line ends only at the last step, but the bar is whole
        for line in (*lines, *bars):
            state = advance(self.state, line.decode("utf-8", "replace"))
            if state != self.state:
                self.state = state
                yield state


def advance(state: Progress, line: str) -> Progress:
    """The state after one line or one drawn bar."""
    if (bar := _BAR.search(line)) is not None:
        return _counted(state, int(bar[1]), int(bar[2]), float(bar[3] if bar[3].count(".") < 2 else 0), bar[4], bar[3] + bar[4])
    if _LOG_LINE.match(line) is None:
        return state
    text = line.split(" - ", 1)[-1]
    if (picture := _PICTURE.search(line)) is not None:
        fresh = replace(state, stage="sampling", step=0, steps=0, rate="", seconds_left=None)
        return replace(fresh, picture=int(picture[1]), pictures=int(picture[2]))
    if (aligned := _ALIGNED.search(line)) is not None:
        return replace(state, aligned=(int(aligned[1]), int(aligned[2])))
    for beginning, stage in _BEGINS:
        if text.startswith(beginning) and STAGES.index(stage) > STAGES.index(state.stage):
            return replace(state, stage=stage, step=0, steps=0, rate="", seconds_left=None)
    return state


def _counted(state: Progress, step: int, steps: int, number: float, unit: str, rate: str) -> Progress:
    """A bar. One in bytes belongs to loading, whenever it comes; one in steps to the stage that has begun."""
    if unit in ("MB/s", "GB/s"):
        return replace(state, stage=max(state.stage, "loading", key=STAGES.index), step=step, steps=steps, rate=rate)
    stage = max(state.stage, "sampling", key=STAGES.index)
    each = number if unit == "s/it" else 1 / number if number else None
    left = None if each is None else each * max(0, steps - step)
    return replace(state, stage=stage, step=step, steps=steps, rate=rate, seconds_left=left)
