"""The engine's output while it comes: to the log, the diagnosis and whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdrun.launch.progress import Progress, ProgressReader
from sdrun.launch.runlog import RunLog
from sdrun.runtime.protocol import Stream

if TYPE_CHECKING:
    from sdrun.launch.diagnosis import LogReader
    from sdrun.models.meter import Show


def _nothing(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what while it works. `note`: for people; `detail`: for those who want to know more; `progress`: the engine's
    newest state; `output`: the engine's own bytes as they come; `download`: how far a model is fetched (told to
    `note` in a few lines where that is None)."""

    note: Callable[[str], None] = _nothing
    detail: Callable[[str], None] = _nothing
    progress: Callable[[Progress], None] = field(default=lambda state: None)
    output: Callable[[Stream, bytes], None] = field(default=lambda stream, data: None)
    download: Show | None = None


class Watch:
    """Takes the engine's output to the log, the diagnosis and the display. What it needs is imported with the first bytes, when
    the container is already running."""

    def __init__(self, log: RunLog, listener: Listener) -> None:
        self._log = log
        self._listener = listener
        self._progress = ProgressReader()
        self._reader: LogReader | None = None

    @property
    def reader(self) -> LogReader:
        """The diagnosis's view of the log."""
        if self._reader is None:
            import sdrun.launch.metadata  # noqa: F401 (for the end of the run: while the engine computes it costs no time)
            from sdrun.launch.diagnosis import LogReader

            self._reader = LogReader()
        return self._reader

    @property
    def aligned(self) -> tuple[int, int] | None:
        """The size the engine rounded the request up to, where it did."""
        return self._progress.state.aligned

    @property
    def device(self) -> str:
        """What the engine said it computes on."""
        return ", ".join(f"CUDA{row.index} {row.name}" for row in self.reader.devices) or "cpu"

    def take(self, stream: Stream, data: bytes) -> None:
        """The sink of the run."""
        self._log.write(data)
        self.reader.feed(stream, data)
        self._listener.output(stream, data)
        if stream == "stdout":
            for state in self._progress.feed(data):
                self._listener.progress(state)
