"""The relay before a server: when it listens, what it copies, how it drains."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sdrun.errors import UsageProblem
from sdrun.launch.serve_relay import Relay, answers, bind

HEAD = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Engine:
    """Answers each request, on kept connections too, when `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while request := connection.recv(65536):
                    if request.endswith(b"\r\n\r\n"):
                        self.asked.release()
                        self.gate.wait(30)
                        connection.sendall(ANSWER)
            except OSError:
                return

    def close(self) -> None:
        self.gate.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def engine() -> Iterator[Engine]:
    running = Engine()
    yield running
    running.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay("127.0.0.1", 0)
    yield made
    made.close()


def client(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=20)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(HEAD)
    return read(connection)


def read(connection: socket.socket) -> bytes:
    got = b""
    while len(got) < len(ANSWER) and (more := connection.recv(65536)):
        got += more
    return got


def test_nobody_gets_in_before_it_is_open(relay: Relay, engine: Engine) -> None:
    with pytest.raises(ConnectionRefusedError):
        client(relay)
    relay.open(engine.address)
    with client(relay) as connection:
        assert ask(connection) == ANSWER
        assert ask(connection) == ANSWER  # the connection is kept
    assert answers(("127.0.0.1", relay.port))
    assert relay.url == f"http://127.0.0.1:{relay.port}"


def test_a_port_is_taken_at_once() -> None:
    """Also between two that are both not open yet, and where somebody else listens."""
    first = Relay("127.0.0.1", 0)
    try:
        with pytest.raises(UsageProblem) as taken:
            Relay("127.0.0.1", first.port)
        assert (taken.value.id, taken.value.exit_code) == ("port-in-use", 2)
        assert "--port" in taken.value.remedy
    finally:
        first.close()
    Relay("127.0.0.1", first.port).close()  # free again


def test_a_port_with_connections_of_an_earlier_server_is_free(engine: Engine) -> None:
    first = Relay("127.0.0.1", 0)
    first.open(engine.address)
    connection = client(first)
    assert ask(connection) == ANSWER
    first.close()  # closed from this side: the port goes to TIME_WAIT
    connection.close()
    again = Relay("127.0.0.1", first.port)
    again.open(engine.address)
    with client(again) as connection:
        assert ask(connection) == ANSWER
    again.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "x" * 300, "\x00"])
def test_an_address_that_is_not_here(host: str) -> None:
    with pytest.raises(UsageProblem) as unknown:
        bind(host, 0)
    assert unknown.value.id == "address-unknown"


def test_who_can_reach_it() -> None:
    for host, exposed, start in (
        ("127.0.0.1", None, "http://127.0.0.1:"),
        ("localhost", None, "http://localhost:"),
        ("0.0.0.0", "on every network of this machine", "http://127.0.0.1:"),
    ):
        made = Relay(host, 0)
        assert made.exposed == exposed
        assert made.url.startswith(start)
        made.close()


def test_draining_waits_for_the_answer_that_is_due(relay: Relay, engine: Engine) -> None:
    relay.open(engine.address)
    idle, busy = client(relay), client(relay)
    assert ask(idle) == ANSWER
    engine.gate.clear()
    engine.asked.acquire()
    busy.sendall(HEAD)
    engine.asked.acquire()
    left: list[int] = []
    draining = threading.Thread(target=lambda: left.append(relay.drain(30)))
    draining.start()
    assert idle.recv(1) == b""  # nothing was asked on it: closed
    with pytest.raises(ConnectionRefusedError):
        client(relay)
    assert draining.is_alive()
    engine.gate.set()
    assert read(busy) == ANSWER
    draining.join(10)
    assert left == [0]
    assert busy.recv(1) == b""
    idle.close()
    busy.close()


def test_draining_ends_after_its_time(relay: Relay, engine: Engine) -> None:
    relay.open(engine.address)
    engine.gate.clear()
    with client(relay) as one, client(relay) as two:
        for connection in (one, two):
            connection.sendall(HEAD)
            engine.asked.acquire()
        begun = time.monotonic()
        assert relay.drain(0.3) == 2
        assert 0.25 < time.monotonic() - begun < 5
        relay.close()
        assert one.recv(1) == b""


def test_a_client_that_does_not_read_gets_its_whole_answer(relay: Relay) -> None:
    """An answer larger than every buffer on the way is still being sent when the relay drains."""
    whole = b"x" * (8 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay.open(listener.getsockname())
        with client(relay) as slow:
            slow.sendall(HEAD)
            engine, _ = listener.accept()
            sender = threading.Thread(target=lambda: (engine.recv(100), engine.sendall(whole), engine.close()))
            sender.start()
            left: list[int] = []
            draining = threading.Thread(target=lambda: left.append(relay.drain(60)))
            slow.recv(1)
            draining.start()
            got = 1
            while more := slow.recv(65536):
                got += len(more)
            draining.join(20)
            sender.join(20)
    assert (got, left) == (len(whole), [0])


def test_an_engine_that_is_gone_ends_the_connection(relay: Relay, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    relay.open(nobody)
    with client(relay) as connection:
        assert connection.recv(1) == b""
    assert not answers(nobody)
    assert relay.drain(5) == 0


def test_a_client_that_leaves_does_not_hold_a_drain_up(relay: Relay, engine: Engine) -> None:
    relay.open(engine.address)
    with client(relay) as connection:
        assert ask(connection) == ANSWER
    assert relay.drain(20) == 0


def test_closing_ends_a_drain(relay: Relay, engine: Engine) -> None:
    """As on a second signal: at once, without a word on stderr about what was under way."""
    relay.open(engine.address)
    engine.gate.clear()
    with client(relay) as connection:
        connection.sendall(HEAD)
        engine.asked.acquire()
        left: list[int] = []
        draining = threading.Thread(target=lambda: left.append(relay.drain(60)))
        draining.start()
        while True:  # until it drains
            try:
                client(relay).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.005)
        relay.close()
        draining.join(10)
        assert not draining.is_alive()
        assert connection.recv(1) == b""
    assert len(left) == 1


def test_closing_in_a_crowd(relay: Relay, engine: Engine) -> None:
    """Connections at every stage: accepted or not yet, connected on or not yet, asked, answered. Nothing is left open (pytest
    makes an error of what is)."""
    relay.open(engine.address)
    crowd = [client(relay) for _ in range(60)]
    for connection in crowd[::3]:
        connection.sendall(HEAD)
    crowd += [client(relay) for _ in range(60)]
    relay.close()
    for connection in crowd:
        connection.close()
