"""Several files at a time, each in a thread; the first that fails ends the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from sdrun.errors import Interrupted

AT_ONCE = 4  # one connection seldom fills a line, and a model has no more than four parts
T = TypeVar("T")
R = TypeVar("R")


def side_by_side(items: Iterable[T], work: Callable[[T], R], stop: threading.Event) -> list[R]:
    """`work` of each item, in their order. `stop` is set when one fails or the user interrupts, and `work` looks at it; what it
    raises is raised here. The threads are daemons: after Ctrl-C nobody waits for a connection that is silent."""
    listed = list(items)
    todo: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
    for entry in enumerate(listed):
        todo.put(entry)

    def worker() -> None:
        while not stop.is_set():
            try:
                number, item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, work(item)))
            except BaseException as fault:  # noqa: BLE001  it is raised again in the caller's thread
                done.put((number, fault))

    for _ in range(min(AT_ONCE, len(listed))):
        threading.Thread(target=worker, daemon=True).start()
    results: dict[int, R] = {}
    try:
        while len(results) < len(listed):
            number, result = done.get()
            if isinstance(result, BaseException):
                raise result
            results[number] = result
    except KeyboardInterrupt:
        stop.set()
        raise Interrupted("stopped; what has arrived is kept, and the next run goes on from there", "") from None
    except BaseException:
        stop.set()
        raise
    return [results[number] for number in range(len(listed))]
