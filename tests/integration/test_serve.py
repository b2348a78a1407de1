"""`sdrun serve` as a user runs it: the engine's own server in a real container, asked in both of its languages."""

from __future__ import annotations

import base64
import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from sdrun.runtime.network import INTERNAL, PUBLISHED
from sdrun.runtime.protocol import LocalImage

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cpu_image")]

ON_CPU = ("-m", "tiny", "--allow-cpu", "--gpu", "none")
LONG = {"prompt": "x", "width": 512, "height": 512, "steps": 100, "seed": 1}  # a minute at the least
SOME_SECONDS = {"prompt": "x", "width": 256, "height": 256, "steps": 40, "seed": 1}
Serve = Callable[..., "Server"]


class Server:
    """A running `sdrun serve` and the address it printed."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None  # it was asked for
        self.process, self.log = process, log
        self.url = process.stdout.readline().strip()

    def post(self, path: str, body: object, timeout: float = 120) -> dict[str, object]:
        data = json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=timeout) as answer:
            document: dict[str, object] = json.load(answer)
            return document

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def until_drawing(self) -> None:
        """Until the engine's log says that a picture is being drawn."""
        until = time.monotonic() + 60
        while b"generating image" not in self.log_bytes() and time.monotonic() < until:
            time.sleep(0.05)
        assert b"generating image" in self.log_bytes()

    def log_bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.log.glob("*.log"))

    def refuses(self) -> bool:
        """Whether it takes no more connections, within some seconds."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), timeout=5).close()
            except ConnectionRefusedError:
                return True
            time.sleep(0.05)
        return False

    @property
    def container(self) -> str:
        """Its name, which its log bears."""
        (log,) = self.log.glob("*.log")
        return "sdrun-" + log.stem.split("-sdrun-")[1]


@pytest.fixture
def serve(work: Path, environment: dict[str, str]) -> Iterator[Serve]:
    begun: list[subprocess.Popen[str]] = []

    def start(*more: str, env: dict[str, str] | None = None) -> Server:
        argv = [sys.executable, "-m", "sdrun", "serve", *ON_CPU, "--port", "0", *more]
        with (work / f"err{len(begun)}.txt").open("w") as err:
            process = subprocess.Popen(argv, cwd=work, env=env or environment, stdout=subprocess.PIPE, stderr=err, text=True)
        begun.append(process)
        return Server(process, Path(environment["SDRUN_STATE_DIR"]) / "logs")

    yield start
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None  # it was asked for
        process.stdout.close()


def refused(arguments: tuple[str, ...], work: Path, env: dict[str, str]) -> dict[str, object]:
    argv = [sys.executable, "-m", "sdrun", "serve", *ON_CPU, "--json", *arguments]
    done = subprocess.run(argv, cwd=work, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"]
    return answer


def picture(text: object) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(str(text))))


def containers(name: str) -> str:
    argv = ["docker", "ps", "-a", "--filter", f"name={name}", "--format", "{{.Names}}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def gone(name: str) -> bool:
    until = time.monotonic() + 20
    while containers(name) and time.monotonic() < until:
        time.sleep(0.2)
    return not containers(name)


@pytest.mark.parametrize("which", ["docker", "podman"])
def test_both_languages_draw_what_generate_draws(
    which: str, serve: Serve, work: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if which == "podman":
        environment["SDRUN_RUNTIME"] = "podman"
        environment["CONTAINER_HOST"] = f"unix://{request.getfixturevalue('podman_socket')}"
    server = serve()
    if which == "podman" and not server.url and "network" in (work / "err0.txt").read_text():
        pytest.skip(f"podman has no network for containers here: {(work / 'err0.txt').read_text()[-300:]}")
    name = server.container
    assert server.url.startswith("http://127.0.0.1:")
    openai = server.post("/v1/images/generations", {"prompt": "a red fox", "size": "64x64", "n": 1})
    (row,) = openai["data"]  # type: ignore[misc]
    a1111 = server.post("/sdapi/v1/txt2img", {"prompt": "a red fox", "width": 64, "height": 64, "seed": 42})
    (other,) = a1111["images"]  # type: ignore[misc]
    argv = [sys.executable, "-m", "sdrun", "generate", *ON_CPU, "-p", "a red fox", "-W", "64", "-H", "64", "-o", "x.png"]
    subprocess.run(argv, cwd=work, env=environment, capture_output=True, check=True, timeout=120)
    with Image.open(work / "x.png") as drawn, picture(row["b64_json"]) as one, picture(other) as two:
        assert (one.format, one.size) == ("PNG", (64, 64))
        assert one.tobytes() == drawn.tobytes()
        assert two.tobytes() == drawn.tobytes()
    with picture(server.post("/v1/images/generations", {"prompt": "a red fox"})["data"][0]["b64_json"]) as usual:  # type: ignore[index]
        assert usual.size == (256, 256)  # the model's own size, where nothing is said
    with pytest.raises(urllib.error.HTTPError) as nothing:
        server.post("/v1/images/generations", {"prompt": ""})
    nothing.value.close()
    assert nothing.value.code == 400
    assert server.end() == 0
    if which == "docker":
        assert containers(name) == ""


def test_it_has_no_way_out(serve: Serve, cpu_image: LocalImage) -> None:
    server = serve()
    form = "{{json .HostConfig}}"
    argv = ["docker", "inspect", "--format", form, server.container]
    config = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert (config["NetworkMode"], config["ReadonlyRootfs"], config["CapDrop"]) == (INTERNAL.name, True, ["ALL"])
    assert not config["PortBindings"]
    found = subprocess.run(["docker", "network", "inspect", INTERNAL.name], capture_output=True, text=True, check=True).stdout
    assert json.loads(found)[0]["Internal"] is True


def test_a_picture_in_work_is_finished_and_the_next_refused(serve: Serve) -> None:
    server = serve("--grace", "200")
    got: list[dict[str, object]] = []
    asking = threading.Thread(target=lambda: got.append(server.post("/sdapi/v1/txt2img", SOME_SECONDS, 200)))
    asking.start()
    server.until_drawing()
    name = server.container
    server.process.send_signal(signal.SIGTERM)
    assert server.refuses()
    assert asking.is_alive()
    asking.join(200)
    with picture(got[0]["images"][0]) as whole:  # type: ignore[index]
        assert whole.size == (256, 256)
    assert server.process.wait(60) == 0
    assert containers(name) == ""


@pytest.mark.parametrize("seconds", ["0.5", "600"])
def test_a_picture_that_takes_too_long_is_cut_off(seconds: str, serve: Serve, work: Path) -> None:
    """After the time it was given; at once by a second signal."""
    server = serve("--grace", seconds)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            server.post("/sdapi/v1/txt2img", LONG)
        except (OSError, ValueError) as fault:
            ended.append(fault)

    asking = threading.Thread(target=ask)
    asking.start()
    server.until_drawing()
    name = server.container
    server.process.send_signal(signal.SIGTERM)
    if seconds == "600":
        assert server.refuses()
        time.sleep(0.6)  # sooner it would be the same signal, told twice
        server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130
    asking.join(60)
    assert len(ended) == 1
    told = (work / "err0.txt").read_text().splitlines()
    assert told[-2].startswith("sdrun: stopped")
    assert not {"Traceback (most recent call last):", "Task was destroyed but it is pending!"} & set(told)
    assert containers(name) == ""


def test_a_launcher_that_is_killed_leaves_no_container(serve: Serve) -> None:
    server = serve()
    name = server.container
    assert containers(name)
    server.process.kill()
    assert gone(name)


def test_a_server_that_is_killed_is_told(serve: Serve, work: Path) -> None:
    server = serve()
    subprocess.run(["docker", "kill", server.container], capture_output=True, check=True)
    assert server.process.wait(60) == 9
    assert "whole log:" in (work / "err0.txt").read_text()


def test_a_port_that_is_in_use(work: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = refused(("--port", str(port)), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("port-in-use", 2)


def test_a_model_that_cannot_be_loaded(work: Path, environment: dict[str, str]) -> None:
    """What the engine says while it loads is the verdict, as with a picture."""
    (work / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    answer = refused(("-m", "bad.gguf"), work, environment)
    assert answer["exit_code"] in (2, 7)
    answer = refused(("--", "--rng", "none"), work, environment)
    assert (answer["id"], answer["exit_code"]) == ("engine-argument-rejected", 2)


def test_a_printed_command_serves(work: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "sdrun", "serve", *ON_CPU, "--port", str(port), "--dry-run"]
    done = subprocess.run(argv, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    make = done.stderr.splitlines()[-1].split(": ", 1)[1]
    assert shlex.split(make) == PUBLISHED.command("docker")
    subprocess.run(shlex.split(make), capture_output=True, check=False)  # it may be there from before
    words = shlex.split(done.stdout)
    name = words[words.index("--name") + 1]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until, status = time.monotonic() + 30, 0
        while status != 200 and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2) as answer:
                    status = answer.status
            except OSError:
                time.sleep(0.1)
        assert status == 200
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        process.wait(30)
