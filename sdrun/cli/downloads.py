"""A download's progress on stderr: a bar for each file on a terminal, a line for each tenth elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdrun.cli.console import Console
from sdrun.core.size import size_text
from sdrun.models.meter import Lines, Progress, clock_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Show = Callable[[Progress], None]
_NAME_WIDTH = 28


class Downloads:
    """Takes a pull's progress. rich is imported with the first byte: what is in the store already needs no display."""

    def __init__(self, console: Console) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.show: Show = self._live if terminal and not console.quiet else Lines(console.note)
        self._bars: Bars | None = None
        self._all: TaskID | None = None
        self._files: dict[str, TaskID] = {}

    def _live(self, progress: Progress) -> None:
        alone = progress.file_total == progress.total
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
            self._all = self._bars.add_task(_short(progress.name) if alone else "all files", total=progress.total, left="")
        assert self._all is not None  # it is made with the bars
        words = _words(progress)
        if not alone:
            if progress.name not in self._files:
                self._files[progress.name] = self._bars.add_task(_short(progress.name), total=progress.file_total, left="")
            task = self._files[progress.name]
            if progress.phase == "fetching":
                self._bars.update(task, completed=progress.file_done, total=progress.file_total)
            self._bars.update(task, left=words)
        rate = f"{size_text(progress.rate)}/s " if progress.rate else ""
        left = f"{clock_text(progress.seconds_left)} left" if progress.seconds_left is not None else ""
        self._bars.update(
            self._all,
            completed=progress.done,
            total=progress.total,
            left=f"{rate}{left}" if progress.done < progress.total else words if alone else "",
        )

    def close(self) -> None:
        """Wipes the bars, so that what follows begins on a clean line."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._all, self._files = None, None, {}


def _words(progress: Progress) -> str:
    if progress.phase == "fetching":
        return ""
    share = 100 * progress.file_done // max(progress.file_total, 1)
    return "done" if share == 100 else f"checking {share}%"


def _short(name: str) -> str:
    """The end of a long name, where its quantisation stands."""
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"


def _bars() -> Any:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        DownloadColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=Terminal(stderr=True),
        transient=True,
    )
