"""A short-lived child process that can neither hang nor flood its parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

_REAP_S = 1.0


class NotStarted(Exception):
    """The program cannot be started; the text is the operating system's."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended: `code` is its exit status, minus the signal that ended it, or None when it had to be killed (too
    slow, or more than `max_bytes` of output); `output` is what it had written to stdout by then."""

    code: int | None
    output: str

    @property
    def ending(self) -> str:
        """How it ended, for a sentence: "exit 9", "signal SIGSEGV", "no answer"."""
        if self.code is None:
            return "no answer in time"
        if self.code >= 0:
            return f"exit {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal {-self.code}"


def run_limited(
    argv: Sequence[str],
    environ: Mapping[str, str],
    limit_s: float,
    max_bytes: int = 1 << 20,
    meanwhile: Callable[[], None] | None = None,
) -> Finished:
    """Runs `argv` in a session of its own and collects its stdout; stderr and stdin are closed off. After `limit_s` seconds or
    `max_bytes` bytes its whole process group is killed. A process that not even SIGKILL ends (it waits inside the kernel) is
    left behind after one more second. `meanwhile` is called once the process runs, and its time is not counted. Raises
    NotStarted, and what `meanwhile` raises."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
        )
    except OSError as fault:
        raise NotStarted(fault.strerror) from None
    assert process.stdout is not None
    code: int | None = None
    try:
        if meanwhile is not None:
            meanwhile()
        deadline = time.monotonic() + limit_s
        output, whole = _read(process.stdout.fileno(), deadline, max_bytes)
        if whole:
            code = process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        pass  # it closed its stdout and lives on
    finally:
        process.stdout.close()
        if code is None:
            _kill(process)
    return Finished(code, output.decode("utf-8", "replace"))


def _read(descriptor: int, deadline: float, max_bytes: int) -> tuple[bytes, bool]:
    """What came, and whether that was all: False where the time or `max_bytes` ran out before the end of the stream."""
    output = bytearray()
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return bytes(output), True
        output += chunk
        if len(output) > max_bytes:
            break
    return bytes(output), False


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Not yet reaped, so its process group still carries its id: nobody else's can be hit.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_REAP_S)
    except subprocess.TimeoutExpired:
        process.returncode = -signal.SIGKILL  # left behind in the kernel: nothing more can be done, nor should be waited for
