"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sdrun.launch.stopping import drainable, stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_and_the_next_do_not(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ordered = False

    def run() -> None:
        nonlocal ordered
        with stoppable(), stoppable():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
                ordered = True

    with pytest.raises(KeyboardInterrupt):
        run()
    assert ordered
    assert {n: signal.getsignal(n) for n in before} == before


def test_what_the_parent_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_is_left_alone() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with stoppable():
                pass
        except ValueError as fault:
            failures.append(fault)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_drains_and_the_second_raises(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("sdrun.launch.stopping.monotonic", lambda: clock[0])
    before = signal.getsignal(number)
    begun: list[int] = []

    def run() -> None:
        with drainable(lambda: not begun.append(1)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # at once: the same one, told twice
            os.kill(os.getpid(), signal.SIGTERM)
            assert begun == [1]
            clock[0] += 1
            os.kill(os.getpid(), number)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert begun == [1]
    assert signal.getsignal(number) is before


def test_where_nothing_is_to_be_drained_the_first_signal_raises() -> None:
    with pytest.raises(KeyboardInterrupt), drainable(lambda: False):
        os.kill(os.getpid(), signal.SIGTERM)
    with stoppable(), drainable(lambda: True):
        pass
