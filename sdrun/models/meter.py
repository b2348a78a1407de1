"""Counting bytes that several threads fetch: how many are done, how fast, how long it will take."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sdrun.core.size import size_text

Phase = Literal["fetching", "checking"]
WINDOW_S = 10.0  # the speed is that of the last seconds: a line that slowed down must not promise its old speed
_LEAST_S = 0.1  # between two calls about a file: a display gains nothing from more, and drawing is not free


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest state. `done` and `total` in bytes, of the file `name` and of all together; `rate` in bytes a second and
    `seconds_left` are None until something can be said."""

    phase: Phase
    name: str
    file_done: int
    file_total: int
    done: int
    total: int
    rate: float | None
    seconds_left: float | None


Show = Callable[[Progress], None]


def _nobody(progress: Progress) -> None:
    pass


class Meter:
    """Adds up what threads report and tells `show`, one call at a time."""

    def __init__(self, total: int, show: Show | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._show = show or _nobody
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0
        self._files: dict[str, tuple[int, int]] = {}
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._fetched = 0
        self._last: dict[str, float] = {}  # by file: the quickest one must not hide the others

    def begin(self, name: str, done: int, total: int) -> None:
        """A file of `total` bytes of which `done` are there already, from an earlier run."""
        with self._lock:
            before = self._files.get(name, (0, 0))[0]
            self._files[name] = (done, total)
            self._done += done - before

    def advance(self, name: str, count: int) -> None:
        """`count` more bytes of the file arrived; a negative number takes back what has to be fetched again."""
        with self._lock:
            done, total = self._files[name]
            self._files[name] = (done + count, total)
            self._done += count
            self._fetched += max(count, 0)
            self._tell("fetching", name, *self._files[name])

    def checking(self, name: str, done: int, total: int) -> None:
        """`done` of `total` bytes of the file have been hashed."""
        with self._lock:
            self._tell("checking", name, done, total)

    def _tell(self, phase: Phase, name: str, file_done: int, file_total: int) -> None:
        now = self._clock()
        if now - self._last.get(name, float("-inf")) < _LEAST_S and file_done < file_total:
            return
        self._last[name] = now
        self._marks.append((now, self._fetched))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_S:
            self._marks.popleft()
        begin, before = self._marks[0]
        rate = (self._fetched - before) / (now - begin) if now - begin >= 1 else None
        left = (self._total - self._done) / rate if rate else None
        self._show(Progress(phase, name, file_done, file_total, self._done, self._total, rate, left))


class Lines:
    """Progress in a few lines of text, for files and pipes: each tenth of the whole, and each file that is being checked."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._tenth = 0
        self._checked: set[str] = set()

    def __call__(self, progress: Progress) -> None:
        """Takes the newest state."""
        if progress.phase == "checking":
            if progress.name not in self._checked:
                self._checked.add(progress.name)
                self._say(f"checking {progress.name}")
            return
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth != self._tenth:
            self._tenth = tenth
            self._say(describe(progress))


def describe(progress: Progress) -> str:
    """`40%  2.7 GB of 6.8 GB  41.2 MB/s  1:38 left`, without what is not known yet."""
    share = 100 * progress.done // max(progress.total, 1)
    words = [f"{share:3d}%", f"{size_text(progress.done)} of {size_text(progress.total)}"]
    if progress.rate is not None:
        words.append(f"{size_text(progress.rate)}/s")
    if progress.seconds_left is not None and progress.done < progress.total:
        words.append(f"{clock_text(progress.seconds_left)} left")
    return "  ".join(words)


def clock_text(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
