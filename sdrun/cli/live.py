"""The engine's progress on stderr: a live bar on a terminal, one line a stage elsewhere, nothing when quiet.

rich is imported with the first state, when the container is already running: it costs the user no time then."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sdrun.cli.console import Console
from sdrun.launch.progress import Progress
from sdrun.runtime.protocol import Stream

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

WORDS = {
    "starting": "starting the engine",
    "loading": "loading weights",
    "encoding": "reading the prompt",
    "sampling": "drawing",
    "decoding": "decoding",
    "saving": "saving",
}


class Display(Protocol):
    """What the verb needs of one."""

    def progress(self, state: Progress) -> None: ...

    def output(self, stream: Stream, data: bytes) -> None: ...

    def close(self) -> None: ...


def display(console: Console) -> Display:
    """The one that fits: nothing under --quiet, the engine's own words under --verbose, a bar on a terminal."""
    if console.quiet:
        return Silent()
    if console.verbose:
        return Raw()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Live()
    return Lines(console)


def describe(state: Progress) -> str:
    """`drawing 2/4` of several pictures, else the stage alone."""
    many = f" {state.picture}/{state.pictures}" if state.pictures > 1 and state.stage == "sampling" else ""
    return WORDS[state.stage] + many


class Silent:
    """Shows nothing."""

    def progress(self, state: Progress) -> None:
        """Nothing."""

    def output(self, stream: Stream, data: bytes) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Raw(Silent):
    """The engine's own output, on stderr."""

    def output(self, stream: Stream, data: bytes) -> None:
        """Hands it on as it came."""
        with suppress(OSError):  # nobody reads it any more: the picture is worth more
            sys.stderr.buffer.write(data)
            sys.stderr.flush()


class Lines(Silent):
    """One line a stage (and a picture), for files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def progress(self, state: Progress) -> None:
        """Takes the newest state."""
        text = describe(state)
        if state.stage == "sampling" and not state.steps:
            return  # its line says how many steps, which the first bar tells
        if text != self._last:
            self._last = text
            steps = f", {state.steps} steps" if state.stage == "sampling" else ""
            self._console.note(text + steps)


class Live(Silent):
    """A bar with steps, the engine's speed and the time left."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def progress(self, state: Progress) -> None:
        """Takes the newest state."""
        with suppress(OSError):  # the terminal has gone; if that is to end the run, its signal does
            self._update(state)

    def _update(self, state: Progress) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
            self._task = self._bars.add_task("", total=None, count="", left="")
        assert self._task is not None  # it is made with the bars
        self._bars.update(
            self._task,
            description=describe(state),
            total=state.steps or None,
            completed=state.step,
            count=f"{state.step}/{state.steps} {state.rate}" if state.steps else "",
            left=f"{clock(state.seconds_left)} left" if state.seconds_left is not None else "",
        )

    def close(self) -> None:
        """Wipes the bar, so that what follows begins on a clean line."""
        if self._bars is not None:
            with suppress(OSError):
                self._bars.stop()


class PullProgress:
    """A pull's bytes over all layers: one line a tenth of what is known so far. Layers are told of one after the other, so the
    whole grows at first; what has been said is not said again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._layers: dict[str, tuple[int, int]] = {}
        self._said = 0

    def show(self, layer: str, done: int, total: int) -> None:
        """Takes the newest state of one layer, in bytes."""
        self._layers[layer] = (done, total)
        fetched, whole = (sum(pair[side] for pair in self._layers.values()) for side in (0, 1))
        tenth = fetched * 10 // whole if whole else 0
        if tenth > self._said:
            self._said = tenth
            self._console.note(f"pulled {fetched / 1e6:.0f} of {whole / 1e6:.0f} MB")


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _bars() -> Any:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        console=Terminal(stderr=True),
        transient=True,
    )
