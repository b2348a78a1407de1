"""One container from creation to removal, against a daemon played by the test."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime.protocol import Exit
from sdrun.runtime.running import ending, frames, run


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


class Pipe:
    """A socket that gives the chunks it was made with, then waits for `release` where it is told to, then ends."""

    def __init__(self, chunks: list[bytes], release: threading.Event | None = None) -> None:
        self.chunks, self.release = list(chunks), release

    def recv(self, size: int, /) -> bytes:
        if self.chunks:
            return self.chunks.pop(0)
        if self.release is not None:
            self.release.wait(10)
        return b""


def event(action: str, at: float, **attributes: str) -> dict[str, Any]:
    return {"Action": action, "timeNano": int(at * 1e9), "Actor": {"Attributes": attributes}}


class Daemon:
    """Plays the daemon's side; notes what was called."""

    def __init__(self, pipe: Pipe, events: list[dict[str, Any]], create: Exception | None = None) -> None:
        self.pipe, self.said, self.create_fault = pipe, events, create
        self.called: list[str] = []
        self.asked_memory = False
        self.closed = False

    def create(self) -> str:
        self.called.append("create")
        if self.create_fault:
            raise self.create_fault
        return "c1"

    def attach(self, container: str) -> Pipe:
        self.called.append("attach")
        return self.pipe

    def events(self, container: str) -> Iterator[dict[str, Any]]:
        self.called.append("events")
        return iter(self.said)

    def start(self, container: str) -> None:
        self.called.append("start")

    def remove(self, container: str) -> None:
        self.called.append("remove")
        if self.pipe.release is not None:
            self.pipe.release.set()

    def was_out_of_memory(self, container: str) -> bool:
        return self.asked_memory

    def close(self) -> None:
        self.closed = True


ENDED = [event("create", 1), event("start", 2), event("die", 5.5, exitCode="0"), event("destroy", 6)]


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_frames_survive_any_cut(size: int) -> None:
    wire = frame(1, b"hello ") + frame(2, b"bad") + frame(1, b"") + frame(1, b"x" * 300)
    chunks = [wire[i : i + size] for i in range(0, len(wire), size)]
    joined = {"stdout": b"", "stderr": b""}
    for stream, data in frames(Pipe(chunks)):
        joined[stream] += data
    assert joined == {"stdout": b"hello " + b"x" * 300, "stderr": b"bad"}


def test_a_run_in_order() -> None:
    daemon = Daemon(Pipe([frame(1, b"a"), frame(2, b"b")]), ENDED)
    got: list[tuple[str, bytes]] = []
    assert run(daemon, lambda stream, data: got.append((stream, data))) == Exit(0, False, 3.5)
    assert got == [("stdout", b"a"), ("stderr", b"b")]
    assert daemon.called == ["create", "events", "attach", "start"]
    assert daemon.closed


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event("start", 1), event("oom", 2), event("die", 3, exitCode="137"), event("destroy", 4)], Exit(137, True, 2.0)),
        ([event("start", 1), event("die", 3, exitCode="137"), event("destroy", 4)], Exit(137, False, 2.0)),
        (
            [event("init", 0), event("start", 1), event("died", 3, containerExitCode="3"), event("remove", 4)],
            Exit(3, False, 2.0),
        ),
    ],
)
def test_how_it_ended(events: list[dict[str, Any]], expected: Exit) -> None:
    assert ending(iter(events), lambda: False) == expected


def test_a_runtime_without_oom_events_is_asked() -> None:
    assert ending(iter([event("start", 1), event("die", 2, exitCode="137")]), lambda: True).out_of_memory
    assert not ending(iter([event("start", 1), event("die", 2, exitCode="1")]), lambda: True).out_of_memory


def test_events_that_break_off_are_a_lost_daemon() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        run(Daemon(Pipe([]), [event("start", 1)]), lambda *_: None)
    assert caught.value.id == "runtime-down"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_the_caller_raises_removes_the_container(raised: type[BaseException]) -> None:
    daemon = Daemon(Pipe([frame(1, b"a")], threading.Event()), ENDED)

    def sink(stream: str, data: bytes) -> None:
        raise raised

    with pytest.raises(raised):
        run(daemon, sink)
    assert daemon.called[-1] == "remove"


def test_nothing_is_removed_where_nothing_was_made() -> None:
    refusal = RuntimeUnavailable("no", "do", id="image-missing")
    daemon = Daemon(Pipe([]), [], create=refusal)
    with pytest.raises(RuntimeUnavailable) as caught:
        run(daemon, lambda *_: None)
    assert caught.value is refusal
    assert daemon.called == ["create"]


def test_garbage_from_the_daemon_is_no_traceback() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        run(Daemon(Pipe([]), [{"Action": "start", "timeNano": "soon"}]), lambda *_: None)
    assert caught.value.exit_code == 6


def test_a_defect_of_the_callers_own_is_not_told_as_the_daemons() -> None:
    daemon = Daemon(Pipe([]), [], create=TypeError("our own"))
    with pytest.raises(TypeError, match="our own"):
        run(daemon, lambda stream, data: None)
