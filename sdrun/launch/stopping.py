"""Signals that end a run: each becomes a KeyboardInterrupt, so that whatever is under way is put in order on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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


def _raise(number: int, frame: FrameType | None) -> None:
    for own in _SIGNALS:
        if signal.getsignal(own) is _raise:
            signal.signal(own, signal.SIG_IGN)
    raise KeyboardInterrupt
