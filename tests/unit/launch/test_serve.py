"""`serve` over a runtime that plays the engine's server: what the container is denied, and each way it can end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gpuhost import HOST

from sdrun.core.host import RuntimeFacts
from sdrun.errors import EngineFailed, Interrupted, RuntimeUnavailable, SdrunError, UsageProblem
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.preparing import Decided, decide
from sdrun.launch.request import Request
from sdrun.launch.runlog import RunLog
from sdrun.launch.serve import ENGINE_PORT, Serving, command_line, serve, spec
from sdrun.launch.serve_relay import READY_PATH, Relay
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage, OutputSink

ON_CPU = Wishes(gpu="none", allow_cpu=True)
LISTENING = b"[INFO ] main.cpp:148  - listening on: 0.0.0.0:1234\n"
KILLED = Exit(137, False, 1.0)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == READY_PATH else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Silent."""


@dataclass(slots=True)
class ServerRuntime(FakeRuntime):
    """A container that answers on the loopback from its start until it is removed, or until `end` is set."""

    said: tuple[bytes, ...] = (LISTENING,)
    ends: Exit | None = None
    listens: bool = True
    end: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    place: tuple[tuple[str, int], ...] = ()

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """Until it is removed."""
        self.specs.append(spec)
        with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            self.containers.append(str(spec.name))
            try:
                for line in self.said:
                    on_output("stdout", line)
                if self.listens:
                    self.place = (server.server_address[:2],)  # type: ignore[assignment]
                self.started.set()
                if self.ends is None:
                    while not self.end.wait(0.05):  # in the main thread, where signals arrive
                        pass
            finally:
                self.containers.remove(str(spec.name))
                self.place = ()
                server.shutdown()
                thread.join()
        return self.ends or KILLED

    def remove(self, container: str) -> bool:
        """Ends it."""
        self.end.set()
        return container in self.containers

    def addresses(self, container: str, port: int) -> tuple[tuple[str, int], ...]:
        """Where it answers."""
        assert port == ENGINE_PORT
        return self.place


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "no-gpu.json").write_text(json.dumps({**HOST, "gpus": [], "driver_version": None, "cuda_driver": None}))
    (tmp_path / "gpu.json").write_text(json.dumps(HOST))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runtime(fake_runtime: FakeRuntime) -> ServerRuntime:
    return ServerRuntime(local=fake_runtime.local)


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay("127.0.0.1", 0)
    yield made
    made.close()


def decided(
    runtime: FakeRuntime, *engine_args: str, wishes: Wishes = ON_CPU, host: str = "no-gpu.json", **more: object
) -> Decided:
    request = Request("tiny", "", engine_args=engine_args, serves=True, **more)  # type: ignore[arg-type]
    return decide(request, wishes, Fetching(), Listener(), lambda: runtime, {"SDRUN_HOST_FACTS": str(Path.cwd() / host)})[0]


def served(
    runtime: ServerRuntime, relay: Relay, ready: Callable[[Serving], None] = lambda serving: None, **more: object
) -> None:
    grace = float(more.pop("grace", 5.0))  # type: ignore[arg-type]
    serve(decided(runtime, **more), runtime, relay, Listener(), grace, ready)  # type: ignore[arg-type]


def failure(runtime: ServerRuntime, relay: Relay, **more: object) -> SdrunError:
    with pytest.raises(SdrunError) as caught:
        served(runtime, relay, **more)  # type: ignore[arg-type]
    assert runtime.containers == []
    return caught.value


def signal_when_ready(number: signal.Signals) -> tuple[Callable[[Serving], None], list[Serving]]:
    told: list[Serving] = []

    def ready(serving: Serving) -> None:
        told.append(serving)
        os.kill(os.getpid(), number)

    return ready, told


def test_the_container_is_as_closed_as_a_pictures(runtime: ServerRuntime) -> None:
    closed = spec(decided(runtime, "--vae-tiling"), "internal", 0, "name")
    assert closed.entrypoint == ("/usr/bin/sd-server",)
    assert (closed.network, dict(closed.ports)) == ("internal", {})
    assert all(mount.read_only for mount in closed.mounts)
    assert closed.image == runtime.local[0].id
    words = list(closed.command)
    assert words[:4] == ["--listen-ip", "0.0.0.0", "--listen-port", "1234"]
    assert words[-1] == "--vae-tiling"
    assert "--prompt" not in words
    assert "--output" not in words
    assert words[words.index("--steps") + 1] == "8"  # the model's defaults hold for requests that say nothing
    published = spec(decided(runtime), "published", 8080, "name")
    assert dict(published.ports) == {1234: 8080}


def test_a_printed_command_publishes_on_the_loopback(runtime: ServerRuntime) -> None:
    words, to_make = command_line(decided(runtime), runtime, 8080)
    assert to_make == ()
    assert words[words.index("--publish") + 1] == "127.0.0.1:8080:1234"
    assert words[words.index("--network") + 1] == "sdrun-published"
    assert words[words.index("--entrypoint") + 1] == "/usr/bin/sd-server"


@pytest.mark.parametrize("word", ["--listen-ip", "-l", "--listen-port", "-m", "--help"])
def test_options_that_are_sdruns(word: str, runtime: ServerRuntime) -> None:
    with pytest.raises(UsageProblem):
        decided(runtime, word, "x")


def test_a_seed_is_a_servers_to_choose(runtime: ServerRuntime) -> None:
    words = spec(decided(runtime, "--seed", "-1"), "internal", 0, "n").command
    assert words[-2:] == ("--seed", "-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_well(number: signal.Signals, runtime: ServerRuntime, relay: Relay) -> None:
    ready, told = signal_when_ready(number)
    before = signal.getsignal(number)
    served(runtime, relay, ready)
    (serving,) = told
    assert serving.url == relay.url
    document = serving.to_json()
    assert (document["schema"], document["target"], document["device"]) == ("sdrun.serve/v1", "cpu", "cpu")
    assert Path(str(document["log"])).read_bytes() == LISTENING
    assert runtime.containers == []
    assert signal.getsignal(number) is before


def test_a_signal_before_it_is_ready_stops_at_once(runtime: ServerRuntime, relay: Relay) -> None:
    runtime.listens, runtime.said = False, ()
    killer = threading.Thread(target=lambda: (runtime.started.wait(20), os.kill(os.getpid(), signal.SIGTERM)))
    killer.start()
    assert isinstance(failure(runtime, relay), Interrupted)
    killer.join()


def test_a_request_that_takes_too_long_is_told(runtime: ServerRuntime, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relay, "drain", lambda self, grace: 2)
    ready, _ = signal_when_ready(signal.SIGTERM)
    error = failure(runtime, relay, ready=ready, grace=0.5)
    assert error.exit_code == 130
    assert error.message == "stopped; 2 requests were cut off after 0.5 s"


def test_a_second_signal_does_not_wait(runtime: ServerRuntime, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrun.launch.stopping._TWICE", 0.0)

    def drain(self: Relay, grace: float) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        runtime.end.wait(20)
        return 1

    monkeypatch.setattr(Relay, "drain", drain)
    ready, _ = signal_when_ready(signal.SIGTERM)
    begun = time.monotonic()
    assert isinstance(failure(runtime, relay, ready=ready, grace=60.0), Interrupted)
    runtime.end.set()
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("said", "ends", "id", "exit_code"),
    [
        (b"ggml_gallocr_reserve_n: failed to allocate CPU buffer of size 1\n", Exit(134, False, 1.0), None, 10),
        (b"", Exit(137, True, 1.0), "out-of-memory", 10),
        (b"[ERROR] new_sd_ctx_t failed\n", Exit(1, False, 1.0), None, None),
        (LISTENING, Exit(0, False, 1.0), "server-ended", 9),
        (b"who knows\n", Exit(3, False, 1.0), "engine-failed", 9),
    ],
)
def test_a_server_that_dies(
    said: bytes, ends: Exit, id: str | None, exit_code: int | None, runtime: ServerRuntime, relay: Relay
) -> None:
    runtime.said, runtime.ends, runtime.listens = (said,), ends, False
    error = failure(runtime, relay)
    assert id in (None, error.id)
    assert error.exit_code == (exit_code or error.exit_code)
    assert error.exit_code in (2, 7, 9, 10)
    if said:
        assert "whole log:" in str(error.detail)


def test_the_gpu_that_was_chosen_must_be_named(runtime: ServerRuntime, relay: Relay) -> None:
    """Before anybody is told the address."""
    labels = {"target": "cu124-sm89", "engine": "sdcpp-90e87bc", "platform": "linux/amd64", "toolkit": "12.4", "sass": "89"}
    labels |= {"ptx": "", "fatbin-compression": "none"}
    cuda = {f"io.sdrun.{key}": value for key, value in labels.items()}
    runtime.local = [LocalImage(f"sha256:{'d' * 64}", ("sdrun:sdcpp-90e87bc-cu124-sm89",), (), cuda, 1, "linux/amd64")]
    runtime.reported = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",))
    told: list[Serving] = []
    error = failure(runtime, relay, ready=told.append, wishes=Wishes(), host="gpu.json")
    assert (error.id, error.exit_code, told) == ("ran-on-cpu", 9, [])
    named = b"  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes\n"
    again = ServerRuntime(local=runtime.local, reported=runtime.reported, said=(named, LISTENING))
    ready, told = signal_when_ready(signal.SIGTERM)
    served(again, relay, ready, wishes=Wishes(), host="gpu.json")
    assert told[0].device == "CUDA0 NVIDIA L4"
    assert again.specs[0].gpu is not None


def test_a_server_that_is_out_of_reach(runtime: ServerRuntime, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrun.launch.serve._REACHED_WITHIN", 0.2)
    runtime.listens = False
    error = failure(runtime, relay)
    assert isinstance(error, RuntimeUnavailable)
    assert (error.id, error.exit_code) == ("server-unreachable", 6)


def test_an_address_that_cannot_be_told_ends_it(runtime: ServerRuntime, relay: Relay) -> None:
    def broken(serving: Serving) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        served(runtime, relay, broken)
    assert runtime.containers == []


def test_an_engine_without_a_server(runtime: ServerRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdrun.catalog.engines import engines

    rows = {name: replace(row, binaries={"cli": "sd-cli"}) for name, row in engines().items()}
    monkeypatch.setattr("sdrun.catalog.engines.engines", lambda: rows)
    with pytest.raises(EngineFailed) as none:
        spec(decided(runtime), "internal", 0, "n")
    assert none.value.id == "engine-without-server"


def test_a_log_without_end_stays_small(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    log = RunLog(folder, "server", limit=100)
    for number in range(50):
        log.write(b"%09d\n" % number)
    log.close()
    assert log.path is not None
    older = log.path.with_name(f"{log.path.stem}-older.log")
    assert sorted(path.name for path in folder.iterdir()) == [older.name, log.path.name]
    assert log.path.stat().st_size + older.stat().st_size <= 220
    assert (older.read_bytes() + log.path.read_bytes()).endswith(b"%09d\n" % 49)


class CompilingRuntime(ServerRuntime):
    """Its driver compiles before the engine says anything."""

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """As another, and leaves what was compiled."""
        for mount in spec.mounts:
            if mount.target == "/jit":
                (mount.source / "index").write_bytes(b"code")
        return ServerRuntime.run(self, spec, on_output)


@pytest.mark.parametrize("drew", [True, False])
def test_what_was_compiled_counts_once_a_picture_was_drawn(drew: bool, relay: Relay) -> None:
    """At that moment, not at the end: a server may be killed after months."""
    facts = {"io.sdrun.target": "cu124-multi", "io.sdrun.engine": "sdcpp-90e87bc", "io.sdrun.toolkit": "12.4"}
    facts |= {"io.sdrun.sass": "", "io.sdrun.ptx": "80", "io.sdrun.fatbin-compression": "none"}
    image = LocalImage(f"sha256:{'d' * 64}", ("sdrun:sdcpp-90e87bc-cu124-multi",), (), facts, 9, "linux/amd64")
    lines = [b"  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes\n", LISTENING]
    lines += [b"[INFO ] stable-diffusion.cpp:3591 - generate_image compl", b"eted in 41.20s\n"] if drew else []
    reported = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",))
    runtime = CompilingRuntime(local=[image], reported=reported, said=tuple(lines), ends=KILLED)
    with pytest.raises(SdrunError):
        served(runtime, relay, wishes=Wishes(), host="gpu.json")
    (entry,) = (Path.cwd() / "cache" / "jit").iterdir()
    assert (entry / "record.json").exists() == drew
    assert runtime.specs[0].environment["CUDA_CACHE_PATH"] == "/jit"
    words, to_make = command_line(decided(runtime, wishes=Wishes(), host="gpu.json"), runtime, 8080)
    assert to_make == ()
    assert f"type=bind,source={entry / 'cache'},target=/jit" in words
