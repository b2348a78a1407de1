"""Signals that end a run: each becomes a KeyboardInterrupt, so that whatever is under way is put in order on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

# Seconds in which a second signal is the first one told twice: timeout(1) and some supervisors signal a program and its group.
_TWICE = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread; further ones are ignored, so
    that putting things in order is not cut short. One that the parent had ignored (nohup) stays ignored. Does nothing within
    itself, nor outside the main thread, where Python sets no handlers."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is _raise:
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in (n for n, handler in before.items() if handler is not signal.SIG_IGN):
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def drainable(begin: Callable[[], bool]) -> Iterator[None]:
    """As `stoppable`, but the first signal calls `begin`, in the main thread and wherever it happens to be; only where that
    answers False, and with the second signal, is KeyboardInterrupt raised."""
    with stoppable():
        mine = [number for number in _SIGNALS if signal.getsignal(number) is _raise]

        def stop(number: int, frame: FrameType | None) -> None:
            for own in mine:
                signal.signal(own, _raise)
            _raise(number, frame)

        def first(number: int, frame: FrameType | None) -> None:
            begun = monotonic()

            def again(number: int, frame: FrameType | None) -> None:
                if monotonic() - begun >= _TWICE:
                    stop(number, frame)

            for own in mine:
                signal.signal(own, again)
            if not begin():
                stop(number, frame)

        for number in mine:
            signal.signal(number, first)
        try:
            yield
        finally:
            for number in mine:
                signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    for own in _SIGNALS:
        if signal.getsignal(own) is _raise:
            signal.signal(own, signal.SIG_IGN)
    raise KeyboardInterrupt
