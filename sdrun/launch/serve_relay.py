"""The address a server is reached at: bound before anything starts, open when the engine answers, closed before it goes.

The engine's server takes connections until the moment it is killed, so it cannot let a picture in work finish and refuse the
next one. This relay can: it copies bytes between its clients and the engine, and when it drains it takes no more connections,
closes those on which nothing is asked, and waits for the others.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import ipaddress
import socket
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

from sdrun.errors import UsageProblem

READY_PATH = "/v1/models"  # the engine has no path of its own for health (examples/server/routes_openai.cpp)
_ANSWER_WITHIN = 2.0  # seconds
_BLOCK = 64 * 1024
_QUIET = 0.5  # seconds without a byte after which an answer is taken to be whole: the engine sends each in one piece
_LOOK_AGAIN = 0.1  # seconds between two looks at what is still open, while draining
_ANYWHERE = ("0.0.0.0", "::")


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to that address and not yet listening; port 0 is a free one. Raises UsageProblem: `port-in-use`,
    `port-not-allowed`, `address-unknown`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError, OverflowError):
        raise UsageProblem(
            f"{host!r} is no address of this machine", "Use 127.0.0.1, ::1 or 0.0.0.0.", id="address-unknown"
        ) from None
    family, kind, protocol, _, address = sorted(found, key=lambda row: row[0] != socket.AF_INET)[0]
    try:
        try:
            return _bound(socket.socket(family, kind, protocol), address)
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE:
                raise
        # Connections of an earlier server may still be in TIME_WAIT. With this option on both sides they are no hindrance;
        # asked for at once it would let two servers that are both still loading have the same port.
        again = socket.socket(family, kind, protocol)
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _bound(again, address)
    except OSError as fault:
        raise _not_bound(fault, host, port) from None


def _bound(open_socket: socket.socket, address: object) -> socket.socket:
    try:
        open_socket.bind(address)  # type: ignore[arg-type] # of the family that getaddrinfo named with it
    except OSError:
        open_socket.close()
        raise
    return open_socket


def _not_bound(fault: OSError, host: str, port: int) -> UsageProblem:
    if fault.errno == errno.EADDRINUSE:
        return UsageProblem(
            f"port {port} of {host} is in use", "Choose another: --port PORT; 0 takes a free one.", id="port-in-use"
        )
    if fault.errno in (errno.EACCES, errno.EPERM):
        return UsageProblem(f"port {port} is not yours to take", "Choose one from 1024 on: --port PORT.", id="port-not-allowed")
    return UsageProblem(f"{host} is no address of this machine", "Use 127.0.0.1, ::1 or 0.0.0.0.", id="address-unknown")


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection. `asked`: the last bytes came from the client, so an answer is due; `last`: when."""

    writer: asyncio.StreamWriter
    asked: bool = False
    last: float = 0.0

    def busy(self, now: float) -> bool:
        flowing = self.last > 0 and now - self.last < _QUIET
        return self.asked or flowing or self.writer.transport.get_write_buffer_size() > 0


class Relay:
    """Copies between clients and one target. Runs in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = bind(host, port)
        self._host = host
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._target = ("", 0)
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._drains: set[asyncio.Task[int]] = set()

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://[{name}]:{self.port}" if ":" in name else f"http://{name}:{self.port}"

    @property
    def exposed(self) -> str | None:
        """Who can reach it beside this machine's own programs, in words; None where nobody can."""
        address = ipaddress.ip_address(self._socket.getsockname()[0].split("%")[0])
        if address.is_loopback:
            return None
        return "on every network of this machine" if str(address) in _ANYWHERE else f"on the network of {address}"

    def open(self, target: tuple[str, int]) -> None:
        """Takes connections from now on. Raises UsageProblem where another program has begun to listen there meanwhile."""
        self._target = target
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its connections inherit it, see `bind`
        self._thread = threading.Thread(target=self._run, name="sdrun-relay", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except OSError as fault:
            raise _not_bound(fault, self._host, self.port) from None

    def drain(self, grace: float) -> int:
        """Takes no more connections and waits at most `grace` seconds for the answers that are due; how many still are. Where
        the relay is closed meanwhile, those that were open then."""
        try:
            return asyncio.run_coroutine_threadsafe(self._drain(grace), self._loop).result()
        except CancelledError:
            return len(self._links)

    def close(self) -> None:
        """Cuts what is open and gives back the port."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
        self._loop.close()
        self._socket.close()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._cut())

    async def _cut(self) -> None:
        await self._close_door()
        # What asyncio itself is accepting at this moment ends by itself, and is then among the links.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others & {*self._links, *self._drains}:
                task.cancel()
            await asyncio.wait(others)
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the last connections are given back in the loop's next round

    async def _close_door(self) -> None:
        if self._server is None or not self._server.is_serving():
            return
        # A connection that asyncio accepts in the very round in which its server closes would get lost open (3.11).
        self._loop.remove_reader(self._socket.fileno())
        await asyncio.sleep(0)
        self._server.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        task = self._loop.create_task(self._connect(link, reader))
        self._links[task] = link

        def ended(done: asyncio.Task[None]) -> None:
            self._links.pop(done, None)
            writer.transport.abort()  # also of a task that was cancelled before it began

        task.add_done_callback(ended)

    async def _connect(self, link: _Link, reader: asyncio.StreamReader) -> None:
        writers = [link.writer]
        try:
            with suppress(OSError):  # either side may go at any time
                answers, upstream = await asyncio.open_connection(*self._target)
                writers.append(upstream)
                asking = self._loop.create_task(self._ask(link, reader, upstream))
                try:
                    await self._answer(link, answers)
                finally:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                for writer in writers:
                    writer.close()
                for writer in writers:  # what the client has not read yet is still sent
                    await writer.wait_closed()
        finally:
            for writer in writers[1:]:
                writer.transport.abort()

    async def _ask(self, link: _Link, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_BLOCK):
                link.asked = True
                upstream.write(data)
                await upstream.drain()
        finally:
            if not link.asked:  # a client that has asked may have closed its own half and still wait for the answer
                upstream.close()

    async def _answer(self, link: _Link, answers: asyncio.StreamReader) -> None:
        while data := await answers.read(_BLOCK):
            link.asked, link.last = False, self._loop.time()
            link.writer.write(data)
            await link.writer.drain()

    async def _drain(self, grace: float) -> int:
        if (this := asyncio.current_task()) is not None:
            self._drains.add(this)
        await self._close_door()
        until = self._loop.time() + grace
        while True:
            now = self._loop.time()
            busy = [task for task, link in self._links.items() if link.busy(now)]
            for task in set(self._links).difference(busy):
                task.cancel()
            if not busy or now >= until:
                return len(busy)
            await asyncio.wait(busy, timeout=min(_LOOK_AGAIN, until - now))


def answers(address: tuple[str, int]) -> bool:
    """Whether the engine's server answers at that address."""
    connection = http.client.HTTPConnection(*address, timeout=_ANSWER_WITHIN)
    try:
        connection.request("GET", READY_PATH)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
