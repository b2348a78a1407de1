"""`sdrun serve` on a real GPU: the device it names, a picture, what it can reach, and its end."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdrun.core.selftest import Difference
from tests.gpu.running import Sdrun, apart, containers, docker

pytestmark = pytest.mark.gpu

ASKED = {"prompt": "a red circle", "size": "256x256"}


@contextmanager
def serving(sdrun: Sdrun) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server of the model shapes, and what it told when it answered."""
    argv = sdrun.argv("serve", "-m", "shapes", "--port", "0", "--json")
    with (sdrun.work / "err.txt").open("w") as err:
        server = subprocess.Popen(argv, cwd=sdrun.work, env=sdrun.environ, stdout=subprocess.PIPE, stderr=err, text=True)
    assert server.stdout is not None  # it was asked for
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        assert lines, (sdrun.work / "err.txt").read_text()
        yield server, json.loads("".join(lines))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_picture_from_the_gpu(plan: dict[str, Any], sdrun: Sdrun, record_property: Callable[[str, object], None]) -> None:
    """The same picture as `generate` draws there, and the GPU named before anybody is told the address."""
    before = containers()
    with serving(sdrun) as (server, told):
        assert told["schema"] == "sdrun.serve/v1", told
        assert told["device"].startswith("CUDA0 ")
        assert told["target"] == plan["target"]
        (container,) = containers() - before
        networks = set(json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)))
        assert networks == {"sdrun-internal"}
        assert docker("network", "inspect", "--format", "{{.Internal}}", "sdrun-internal") == "true"  # no way out
        served = picture_of(told["url"], sdrun.work / "served.png")
        sdrun.answer("generate", "-m", "shapes", "-p", "a red circle", "-W", "256", "-H", "256", "-o", "drawn.png")
        assert apart(served, sdrun.work / "drawn.png") == Difference(0, 0)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    record_property("device", told["device"])
    record_property("networks", sorted(networks))


def picture_of(url: str, file: Path) -> Path:
    """Asks the server for one, as OpenAI's clients do."""
    request = urllib.request.Request(
        url + "/v1/images/generations", json.dumps(ASKED).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        (row,) = json.load(answer)["data"]
    file.write_bytes(base64.b64decode(row["b64_json"]))
    return file
