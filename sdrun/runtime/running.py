"""One container from creation to removal, over any daemon that speaks Docker's API.

The daemon removes the container at its end (AutoRemove), so that none is left even when sdrun itself is killed with SIGKILL.
Exit code, memory kill and times therefore come from the daemon's event stream, which is opened before the start: by the time
one could inspect the container it may be gone. All client calls run in one thread, so that Ctrl-C (raised in the main thread)
never tears a request in two; the main thread hands the output on and stops the container when anything is raised.
"""

from __future__ import annotations

import queue
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime.protocol import Exit, OutputSink, Stream

_HEADER = struct.Struct(">BxxxL")  # docs.docker.com/reference/api/engine: attach, "Stream format"
_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_CREATED_WITHIN = 5.0  # seconds a stopping caller waits for a creation under way, so that nothing appears after it has left
_STOPPED_WITHIN = 1.5  # seconds for the removal of a killed container


class Socket(Protocol):
    """The part of a socket that is used here."""

    def recv(self, size: int, /) -> bytes: ...


class Calls(Protocol):
    """The calls a run makes, each raising errors of sdrun.errors only."""

    def create(self) -> str:
        """Makes the container; its id."""
        ...

    def attach(self, container: str) -> Socket:
        """The multiplexed output, from its first byte."""
        ...

    def events(self, container: str) -> Iterator[dict[str, Any]]:
        """What happens to the container, from its creation on, without end."""
        ...

    def start(self, container: str) -> None: ...

    def remove(self, container: str) -> None:
        """Kills and removes; silent where it is gone already."""
        ...

    def was_out_of_memory(self, container: str) -> bool:
        """Asked once after an exit with 137 where the runtime has no event for it."""
        ...

    def close(self) -> None:
        """Gives back the connections of this run."""
        ...


@dataclass(slots=True)
class _Ending:
    exit: Exit | None = None
    error: Exception | None = None


def frames(connection: Socket) -> Iterator[tuple[Stream, bytes]]:
    """The (stream, bytes) of Docker's multiplexed attach connection, handed on as they come: a frame cut by the socket is
    passed in pieces rather than waited for."""
    buffer, left, stream = b"", 0, 1
    while chunk := connection.recv(65536):
        buffer += chunk
        while buffer:
            if left == 0:
                if len(buffer) < _HEADER.size:
                    break
                stream, left = _HEADER.unpack_from(buffer)
                buffer = buffer[_HEADER.size :]
                continue
            piece, buffer = buffer[:left], buffer[left:]
            left -= len(piece)
            yield _STREAMS.get(stream, "stderr"), piece


def ending(events: Iterator[dict[str, Any]], out_of_memory: Callable[[], bool]) -> Exit:
    """Reads events to the container's removal. Docker says start, oom, die, destroy; Podman start, die, remove."""
    started = died = 0
    code: int | None = None
    oom = False
    for event in events:
        action, when, exit_code = _event(event)
        if action == "start":
            started = when
        elif action == "oom":
            oom = True
        elif action in ("die", "died"):
            died, code = when, exit_code
            oom = oom or (code == 137 and out_of_memory())
        elif action in ("destroy", "remove"):
            break
    if code is None:
        raise RuntimeUnavailable(
            "the container runtime stopped while the engine was running", "Run: sdrun doctor", id="runtime-down"
        )
    return Exit(code, oom, max(0, died - started) / 1e9 if started else 0.0)


def _event(event: dict[str, Any]) -> tuple[str, int, int]:
    """What happened, when (nanoseconds), and the exit code where a process ended."""
    try:
        attributes = event.get("Actor", {}).get("Attributes", {})
        code = attributes.get("exitCode") or attributes.get("containerExitCode") or 0
        return str(event.get("Action", "")), int(event.get("timeNano", 0)), int(code)
    except (AttributeError, TypeError, ValueError) as fault:
        raise RuntimeUnavailable(
            "the container runtime tells of a run in a way that sdrun does not know",
            "Run: sdrun doctor",
            id="runtime-failed",
            detail=str(fault),
        ) from None


def run(calls: Calls, on_output: OutputSink) -> Exit:
    """Creates, attaches, starts, follows, removes. Raises what `on_output` or the calls raise, with the container gone; a
    KeyboardInterrupt (whichever signal it stands for) likewise."""
    output: queue.SimpleQueue[tuple[Stream, bytes] | _Ending] = queue.SimpleQueue()
    state = _State()
    worker = threading.Thread(target=_follow, args=(calls, state, output), name="sdrun-container", daemon=True)
    try:
        worker.start()
        while not isinstance(item := output.get(), _Ending):
            on_output(*item)
        if item.error is not None:
            raise item.error
        assert item.exit is not None
        return item.exit
    except BaseException:
        with _deaf():
            _stop(calls, state, worker)
        raise
    finally:
        if worker.ident is not None:
            worker.join(_STOPPED_WITHIN)
        if not worker.is_alive():  # else it still waits for a daemon that hangs, on these very connections
            calls.close()


@dataclass(slots=True)
class _State:
    container: str | None = None
    created: threading.Event = None  # type: ignore[assignment]
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.created = threading.Event()


def _follow(calls: Calls, state: _State, output: queue.SimpleQueue[tuple[Stream, bytes] | _Ending]) -> None:
    """The worker: everything that talks to the daemon on the way to a normal end."""
    result = _Ending()
    try:
        try:
            state.container = calls.create()
        finally:
            state.created.set()
        if state.cancelled:
            return
        events = calls.events(state.container)
        connection = calls.attach(state.container)
        calls.start(state.container)
        for item in frames(connection):
            output.put(item)
        container = state.container
        result.exit = ending(events, lambda: calls.was_out_of_memory(container))
    except OSError as fault:
        result.error = RuntimeUnavailable(
            "the container runtime broke off in the middle of a run", "Run: sdrun doctor", id="runtime-down", detail=str(fault)
        )
    except Exception as fault:  # noqa: BLE001 (it is raised again, in the thread that asked for the run)
        result.error = fault
    finally:
        if result.exit is None and result.error is None:
            result.error = RuntimeUnavailable("the run was cancelled", "", id="runtime-failed")
        output.put(result)


def _stop(calls: Calls, state: _State, worker: threading.Thread) -> None:
    """Kills and removes what was created, also when the creation is still under way."""
    state.cancelled = True
    if worker.ident is not None:
        state.created.wait(_CREATED_WITHIN)
    if state.container is None:
        return
    with suppress(RuntimeUnavailable):  # the daemon is gone then; the error that brought us here is the one to tell
        calls.remove(state.container)


@contextmanager
def _deaf() -> Iterator[None]:
    """No second Ctrl-C while the container is being stopped: it would leave one behind. Bounded by the two limits above."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
