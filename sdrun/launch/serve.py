"""`serve`: the engine's own server in the same closed container as a picture's, behind an address that can be drained."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.errors import EngineFailed, Interrupted, RuntimeUnavailable, SdrunError
from sdrun.launch.choosing import Chosen
from sdrun.launch.engine_args import container, outside, read_by_engine, settings
from sdrun.launch.jitcache import Kept, in_use
from sdrun.launch.preparing import RUN_TARGET_LABEL, Decided, expected_gpu, run_name, surrounded, to_make
from sdrun.launch.runlog import RunLog, point_to, state_folder
from sdrun.launch.serve_relay import Relay, answers
from sdrun.launch.stopping import drainable
from sdrun.launch.watch import Listener, Watch
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit, NetworkKind, Stream

SCHEMA = "sdrun.serve/v1"
ENGINE_PORT = 1234  # inside the container; also the engine's own default
LOG_LIMIT = 32 * 1024 * 1024
_LISTENING = b"listening on"  # examples/server/main.cpp; only spares looking in vain while weights are loaded
_DREW = b"generate_image completed in"  # stable-diffusion.cpp: a picture's end
_ASK_EVERY, _ASK_AGAIN = 1.0, 0.05  # seconds between two questions: before that line, and after it
_REACHED_WITHIN = 10.0  # seconds from that line to the first answer


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers."""

    decided: Decided
    url: str
    device: str
    log: str | None

    def to_json(self) -> dict[str, object]:
        """The document of `--json`, schema sdrun.serve/v1."""
        plan = self.decided.chosen.plan
        return {
            "schema": SCHEMA,
            "url": self.url,
            "model": self.decided.model.name,
            "target": plan.target,
            "image": self.decided.chosen.image,
            "code_path": plan.code_path,
            "device": self.device,
            "log": self.log,
        }


def spec(decided: Decided, network: NetworkKind, port: int, name: str, kept: Kept | None = None) -> ContainerSpec:
    """The server's container. `port` on this host is published on the loopback where the network can publish, 0 for any; what
    the driver compiles goes into `kept`."""
    read = read_by_engine(decided.request, decided.model, decided.fitted.options)
    listen = ("--listen-ip", "0.0.0.0", "--listen-port", str(ENGINE_PORT))
    closed = container(
        decided.chosen.image,
        replace(read, arguments=(*listen, *settings(decided.request), *read.arguments)),
        f"{os.geteuid()}:{os.getegid()}",
        name,
        {RUN_TARGET_LABEL: decided.chosen.plan.target},
        decided.chosen.gpu,
        decided.chosen.plan.handover.narrow_to,
    )
    ports = {} if network == "internal" else {ENGINE_PORT: port}
    opened = replace(closed, network=network, ports=ports, entrypoint=(f"/usr/bin/{_program(decided.chosen)}",))
    return surrounded(opened, decided.chosen, kept)


def _program(chosen: Chosen) -> str:
    """The name of the server's program in the image, by the catalogue's row of its engine."""
    from sdrun.catalog.engines import engines
    from sdrun.core.labels import ENGINE

    named = chosen.local.labels.get(ENGINE, "") if chosen.local is not None else ""
    rows = engines()
    engine = rows.get(named) or next(iter(rows.values()))
    if "server" not in engine.binaries:
        raise EngineFailed(f"the engine {engine.name} has no server", "Choose another image.", id="engine-without-server")
    return engine.binaries["server"]


def command_line(decided: Decided, runtime: ContainerRuntime, port: int) -> tuple[list[str], tuple[Path, ...]]:
    """The container command, as words, of the same server without sdrun before it (reached on the loopback, not drained), and
    the folders to make before."""
    compiled = decided.chosen.compiled
    closed = spec(decided, "published", port, run_name(), Kept(compiled) if compiled is not None else None)
    return runtime.command_line(closed), to_make(closed)


def serve(
    decided: Decided,
    runtime: ContainerRuntime,
    relay: Relay,
    listener: Listener,
    grace: float,
    ready: Callable[[Serving], None],
) -> None:
    """Runs the server until a signal, then takes no more requests and gives the open ones `grace` seconds; `ready` is told
    once it answers. `relay` is opened then, and left for the caller to close. Raises Interrupted where a request was cut off
    (or a second signal came, or one before it was ready), the verdict's error where the engine failed or computed elsewhere
    than chosen, RuntimeUnavailable where it cannot be reached. No container is left."""
    run = run_name()
    log = RunLog(state_folder() / "logs", run, LOG_LIMIT)
    try:
        with in_use(decided.chosen.compiled, listener.note) as kept:
            _Server(decided, runtime, relay, listener, grace, ready, run, log, kept).run()
    except KeyboardInterrupt:
        raise Interrupted("stopped at once; no container was left behind", "Run the same command again.") from None
    except SdrunError as error:
        point_to(error, log.path)
        raise
    finally:
        log.close()


class _Server:
    """One run: the main thread follows the container, a second one waits for the first answer, a third one drains."""

    def __init__(
        self,
        decided: Decided,
        runtime: ContainerRuntime,
        relay: Relay,
        listener: Listener,
        grace: float,
        ready: Callable[[Serving], None],
        run: str,
        log: RunLog,
        kept: Kept | None,
    ) -> None:
        self._decided, self._runtime, self._relay, self._listener = decided, runtime, relay, listener
        self._grace, self._tell, self._log = grace, ready, log
        self._spec = spec(decided, runtime.reachable_network, 0, run, kept)
        self._kept = kept
        self._name = run
        self._watch = Watch(log, listener)
        self._lock = threading.Lock()  # around the watch, which two threads read
        self._heard, self._over, self._open = threading.Event(), threading.Event(), threading.Event()
        self._last = b""
        self._error: BaseException | None = None
        self._drainer: threading.Thread | None = None
        self._left = 0

    def run(self) -> None:
        """To the end."""
        self._listener.detail(shlex.join(self._runtime.command_line(self._spec)))
        waiter = threading.Thread(target=self._guarded, args=(self._wait,), name="sdrun-ready", daemon=True)
        try:
            with drainable(self._begin):
                waiter.start()
                exit = self._runtime.run(self._spec, self._take)
        finally:
            self._over.set()
            self._heard.set()
            waiter.join()
        if self._drainer is not None:
            self._drainer.join()
        self._judge(exit)

    def _take(self, stream: Stream, data: bytes) -> None:
        with self._lock:
            self._watch.take(stream, data)
        if self._heard.is_set() and self._kept is None:
            return
        self._last = self._last[-max(len(_LISTENING), len(_DREW)) :] + data
        if _LISTENING in self._last:
            self._heard.set()
        if self._kept is not None and _DREW in self._last:  # now, since a server may run for months, and be killed then
            kept, self._kept = self._kept, None
            kept.record(self._listener.note)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Runs `work`; what it raises ends the server and is raised in the main thread."""
        try:
            work()
        except Exception as fault:  # noqa: BLE001 (it is raised again, in the thread that asked for the run)
            self._error = fault
            with suppress(RuntimeUnavailable):  # then the run itself ends of it
                self._runtime.remove(self._name)

    def _wait(self) -> None:
        """Until the server answers, or has gone; then opens its address."""
        until: float | None = None
        while not self._over.is_set():
            if (target := self._answering()) is not None:
                self._check_device()
                self._relay.open(target)
                self._open.set()
                log = str(self._log.path) if self._log.path else None
                self._tell(Serving(self._decided, self._relay.url, self._watch.device, log))
                return
            if self._heard.wait(_ASK_EVERY):
                until = until or time.monotonic() + _REACHED_WITHIN
                if time.monotonic() > until:
                    raise _unreachable(self._runtime.name)
                self._over.wait(_ASK_AGAIN)

    def _answering(self) -> tuple[str, int] | None:
        """The address at which the server answers."""
        return next((at for at in self._runtime.addresses(self._name, ENGINE_PORT) if answers(at)), None)

    def _check_device(self) -> None:
        """Raises the verdict's error where a GPU was chosen and the engine did not name it."""
        from sdrun.launch.diagnosis import diagnose

        with self._lock:
            verdict = diagnose(self._watch.reader, Exit(0, False, 0.0), expected_gpu(self._decided.chosen))
        if verdict is not None:
            raise verdict.to_error()

    def _begin(self) -> bool:
        """Begins to drain, if there is anything to drain."""
        if not self._open.is_set():
            return False
        self._drainer = threading.Thread(target=self._guarded, args=(self._drain,), name="sdrun-drain", daemon=True)
        self._drainer.start()
        return True

    def _drain(self) -> None:
        self._listener.note(f"stopping: open requests have {self._grace:g} s; a second signal stops at once")
        self._left = self._relay.drain(self._grace)
        self._runtime.remove(self._name)

    def _judge(self, exit: Exit) -> None:
        from sdrun.launch.diagnosis import diagnose

        if self._error is not None:
            raise self._error
        if self._drainer is not None:
            if self._left:
                what = "1 request was" if self._left == 1 else f"{self._left} requests were"
                raise Interrupted(f"stopped; {what} cut off after {self._grace:g} s", "Give more time: --grace SECONDS.")
            return
        verdict = diagnose(self._watch.reader, exit, expected_gpu(self._decided.chosen))
        if verdict is None:
            raise EngineFailed("the server ended by itself", "Look at its last words in the log.", id="server-ended")
        error = verdict.to_error()
        error.message = outside(error.message, self._spec)
        raise error


def _unreachable(runtime: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        "the server runs and cannot be reached from here",
        f"Run sdrun on the host of {runtime}'s daemon itself, not in a container or on another machine; "
        "also look at the host's firewall.",
        id="server-unreachable",
    )
