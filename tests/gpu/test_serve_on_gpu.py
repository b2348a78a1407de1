"""`sdrun serve` on a real GPU: the device it names, a picture, and its end. Needs a GPU, and an image for it in the runtime
or an index (SDRUN_INDEX)."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.gpu

SDRUN = (sys.executable, "-m", "sdrun")


@pytest.fixture(scope="module", autouse=True)
def plan() -> dict[str, object]:
    """What runs here; skips where no image serves a GPU of this host."""
    done = subprocess.run([*SDRUN, "resolve", "--json"], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"no image runs on a GPU of this host: {done.stderr.strip()[:300]}")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_picture_from_the_gpu(plan: dict[str, object], tmp_path: Path) -> None:
    """The same picture as `generate` draws there, and the GPU named before anybody is told the address."""
    environ = {**os.environ, "SDRUN_STATE_DIR": str(tmp_path / "state")}
    argv = [*SDRUN, "serve", "-m", "tiny", "--port", "0", "--json"]
    with (tmp_path / "err.txt").open("w") as err:
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=err, text=True, env=environ)
    assert server.stdout is not None  # it was asked for
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        told = json.loads("".join(lines))
        assert told["schema"] == "sdrun.serve/v1", told
        assert told["device"].startswith("CUDA0 ")
        assert told["target"] == plan["target"]
        body = json.dumps({"prompt": "a red fox", "size": "256x256"}).encode()
        request = urllib.request.Request(told["url"] + "/v1/images/generations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            (row,) = json.load(answer)["data"]
        drawn = [*SDRUN, "generate", "-m", "tiny", "-p", "a red fox", "-W", "256", "-H", "256", "-o", str(tmp_path / "x.png")]
        subprocess.run(drawn, check=True, capture_output=True, env=environ, timeout=120)
        with Image.open(io.BytesIO(base64.b64decode(row["b64_json"]))) as one, Image.open(tmp_path / "x.png") as other:
            assert one.size == (256, 256)
            assert one.tobytes() == other.tobytes()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
