"""Why a run of the engine failed, read from its whole log while it is written; and the proof that a good run used the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sdrun.catalog.diagnoses import Table, Verdict, diagnose_runtime, load_diagnoses, verdict_for
from sdrun.core.diagnosis import Scanner, clean, first_cause
from sdrun.runtime.protocol import Exit, Stream

__all__ = ["CudaDevice", "LogReader", "Verdict", "diagnose", "diagnose_runtime"]

_BLOCK = 64 * 1024  # whole lines gathered before they are searched: each search looks once for every text of the table
_LONGEST_LINE = 8 * 1024  # the engine cuts its own lines at 4 KiB
_OVERLAP = 512  # kept of a longer line, so that a text across the cut is still found
_TAIL_LINES = 20
_MOST_DEVICES = 64
_REPEATED = "(the same line again)"  # a kernel that cannot run says so once a thread block


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A GPU as the engine named it at its start."""

    index: str
    name: str
    capability: str


class LogReader:
    """Reads a log of any size in linear time and bounded memory: 64 KiB of text, 8 KiB a stream, one finding a cause. Streams
    may be interleaved anywhere, also inside a line."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or load_diagnoses()
        self._causes = Scanner(self.table.patterns("engine"))
        self._marks = Scanner({"device": (self.table.device,), "no_gpu": self.table.no_gpu}, keep=_MOST_DEVICES)
        self._open: dict[str, bytearray] = {}
        self._block = bytearray()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._repeated = ""

    def feed(self, stream: Stream, data: bytes) -> None:
        """Takes the next bytes of one stream, in any portions."""
        line = self._open.setdefault(stream, bytearray())
        cut = data.rfind(b"\n") + 1
        if cut:
            self._block += line
            self._block += data[:cut]
            line[:] = data[cut:]
        else:
            line += data
        if len(line) > _LONGEST_LINE:
            self._block += line
            self._block += b"\n"
            del line[:-_OVERLAP]
        if len(self._block) >= _BLOCK:
            self._search()

    def finish(self) -> None:
        """Takes what has no line end yet (a killed process leaves such a line). Feeding may go on after it."""
        for line in self._open.values():
            if line:
                self._block += line + b"\n"
                line.clear()
        self._search()

    def _search(self) -> None:
        block = bytes(self._block)
        self._block.clear()
        self._causes.scan(block)
        self._marks.scan(block)
        for line in block.rsplit(b"\n", _TAIL_LINES + 1)[-_TAIL_LINES - 1 :]:
            last_frame = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]  # a progress bar overwrites itself after every CR
            if text := clean(last_frame[-4096:]).rstrip()[:400]:
                self._remember(text)

    def _remember(self, text: str) -> None:
        last = self._tail[-1] if self._tail else None
        if text == self._repeated and last == _REPEATED:
            return
        self._tail.append(_REPEATED if text == last else text)
        self._repeated = text

    @property
    def tail(self) -> tuple[str, ...]:
        """The last 20 lines as they were written; of a progress bar only the last frame, of a repeated line only the first."""
        return tuple(self._tail)

    @property
    def devices(self) -> tuple[CudaDevice, ...]:
        """The GPUs that the engine named."""
        named = {f.values["index"]: CudaDevice(**f.values) for f in self._marks.found.get("device", ())}
        return tuple(named.values())

    @property
    def fell_back_to_cpu(self) -> str | None:
        """The line in which the engine said that it computes on the CPU, or None."""
        findings = self._marks.found.get("no_gpu")
        return findings[0].line if findings else None

    def cause(self, code: int, out_of_memory: bool, *, of_cpu_run: bool = False) -> Verdict | None:
        """The first row of the table that holds for this log and this end of the process."""
        rows = self.table.said_by["engine"]
        if of_cpu_run:
            rows = tuple(row for row in rows if row.explains_cpu_run and row.texts)
        match = first_cause(rows, self._causes.found, code, out_of_memory)
        return verdict_for(*match, self._context(code), self.tail) if match else None

    def _context(self, code: int) -> dict[str, str]:
        context = {"exit_code": str(code)}
        if devices := self.devices:
            context["gpu"] = f"{devices[0].name} (compute capability {devices[0].capability})"
            context["sm_selector"] = f"'*-sm{devices[0].capability.replace('.', '')}'"
        return context


def diagnose(log: LogReader, exit: Exit, expected_gpu: bool | str) -> Verdict | None:
    """Why the run failed; None when it ended with exit 0 and, if a GPU was expected, the engine named it and computed on it.
    `expected_gpu` may be the GPU's name, which the engine must then have named."""
    log.finish()
    if exit.code != 0 or exit.out_of_memory:
        return log.cause(exit.code, exit.out_of_memory) or _unknown(exit.code, log.tail)
    if not expected_gpu:
        return None
    if log.devices and log.fell_back_to_cpu is None:
        return _other_gpu(expected_gpu, log) if isinstance(expected_gpu, str) else None
    evidence = (log.fell_back_to_cpu,) if log.fell_back_to_cpu else ()
    return log.cause(0, False, of_cpu_run=True) or Verdict(
        "ran-on-cpu",
        9,
        "The engine computed on the CPU although a GPU was asked for.",
        "Run sdrun doctor; to use the CPU on purpose, add --gpu none --allow-cpu.",
        evidence,
        log.tail,
    )


def _other_gpu(expected: str, log: LogReader) -> Verdict | None:
    wanted = expected.casefold()
    names = [device.name for device in log.devices]
    if any(wanted in name.casefold() or name.casefold() in wanted for name in names):
        return None
    return Verdict(
        "wrong-gpu",
        9,
        f"The engine computed on {', '.join(names)} although {expected} was chosen.",
        "Renew the CDI specification (nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml) and unset CUDA_VISIBLE_DEVICES.",
        tail=log.tail,
    )


def _unknown(code: int, tail: Sequence[str]) -> Verdict:
    return Verdict(
        "engine-failed",
        9,
        f"The engine failed with exit {code} and a text that sdrun does not know.",
        "Read its last words below; if they do not help, report them together with the command that sdrun --verbose prints.",
        tail=tuple(tail),
    )
