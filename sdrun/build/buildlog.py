"""Reading the plain progress of a build while it runs, and the error lines out of it when it has failed. Pure: lines in, values
out. Formats: BuildKit's plain progress (docker build, buildx) and podman's build output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_VERTEX = re.compile(r"#(\d+) (.*)")
_TITLE = re.compile(r"\[(?P<stage>[^\]]*?)(?: +(?P<step>\d+)/(?P<steps>\d+))?\] ?(?P<command>.*)")
_TIMED = re.compile(r"(\d+\.\d+) ?(.*)")
_PODMAN = re.compile(r"(?:\[\d+/\d+\] )?STEP (?P<step>\d+)/(?P<steps>\d+): (?P<command>.*)")
_NINJA = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_ERROR = re.compile(
    r"(?:^|[\s:])(?:fatal )?error(?:\[[^\]]*\])?: |^FAILED: |^CMake Error|undefined reference to|^E: |^ninja: (?:error|fatal)"
    r"|^collect2: |: not found$|No space left on device|Killed"
)
_NOISE = re.compile(r"^(?:executor failed running|error: failed to solve|ERROR: failed to (?:solve|build))")
CONTEXT_LINES = 3  # a compiler shows the source line, the caret and often a note below its error
MOST_LINES = 40


@dataclass(frozen=True, slots=True)
class BuildStep:
    """Where a build is. `stage` and `step`/`steps` as the Dockerfile has them (0 where unknown), `done`/`total` what the
    compile has finished (0/0 outside of it), `line` the text that said so."""

    stage: str
    step: int
    steps: int
    done: int
    total: int
    line: str

    @property
    def percent(self) -> int | None:
        """Share of the compile that is done, 0 to 100, or None outside of it."""
        return self.done * 100 // self.total if self.total else None


@dataclass(slots=True)
class LogReader:
    """Follows a build's log. Steps of BuildKit run side by side, so each line is put to the step it names."""

    _titles: dict[int, BuildStep] = field(default_factory=dict)
    _podman: BuildStep | None = None

    def feed(self, line: str) -> BuildStep | None:
        """The state after one line, or None for a line that changes nothing worth showing."""
        vertex = _VERTEX.fullmatch(line)
        if vertex is None:
            return self._feed_podman(line)
        number, text = int(vertex[1]), vertex[2]
        title = _TITLE.fullmatch(text)
        if title is not None and number not in self._titles:
            step = BuildStep(title["stage"], int(title["step"] or 0), int(title["steps"] or 0), 0, 0, title["command"])
            self._titles[number] = step
            return None if step.stage == "internal" else step
        known = self._titles.get(number)
        timed = _TIMED.fullmatch(text)
        if known is None or timed is None or known.stage == "internal":
            return None
        return self._advance(number, known, timed[2])

    def _advance(self, number: int, known: BuildStep, text: str) -> BuildStep:
        ninja = _NINJA.fullmatch(text)
        done, total = (int(ninja[1]), int(ninja[2])) if ninja else (known.done, known.total)
        step = BuildStep(known.stage, known.step, known.steps, done, total, ninja[3] if ninja else text)
        self._titles[number] = step
        return step

    def _feed_podman(self, line: str) -> BuildStep | None:
        title = _PODMAN.fullmatch(line)
        if title is not None:
            self._podman = BuildStep("", int(title["step"]), int(title["steps"]), 0, 0, title["command"])
            return self._podman
        ninja = _NINJA.fullmatch(line)
        if ninja is None or self._podman is None or ninja[3].startswith("COMMIT"):  # that one counts stages, not files
            return None
        return BuildStep("", self._podman.step, self._podman.steps, int(ninja[1]), int(ninja[2]), ninja[3])


def output_of(line: str) -> str:
    """A log line without BuildKit's step number and time: what the program itself said."""
    vertex = _VERTEX.fullmatch(line)
    if vertex is None:
        return line
    timed = _TIMED.fullmatch(vertex[2])
    return timed[2] if timed else ""


def error_lines(log: Sequence[str]) -> list[str]:
    """What a reader needs of a failed build's log: every line that states an error with the lines that belong to it, in order
    and once; the end of the output where no line does. At most `MOST_LINES`."""
    output = [text for text in map(output_of, log) if text.strip()]
    wanted: list[int] = []
    for i, text in enumerate(output):
        if _ERROR.search(text) and not _NOISE.search(text):
            context = 0 if text.startswith("FAILED: ") else CONTEXT_LINES  # below that stands the command, a screen long
            wanted += range(i, min(i + 1 + context, len(output)))
    if not wanted:
        return output[-12:]
    seen: set[str] = set()
    picked = []
    for i in sorted(set(wanted)):
        noise = _NINJA.match(output[i]) or _NOISE.match(output[i]) or output[i].startswith("---")
        if output[i] not in seen and not noise:  # BuildKit repeats the failed step's end below a rule
            picked.append(output[i][:500])
            seen.add(output[i])
    return picked[:MOST_LINES]
