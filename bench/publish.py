"""Publishing to a registry on this machine, with TLS and a password: the time of each step for real images, and what one
resolve costs, by the registry's own log.

usage: python bench/publish.py TARGET... [--record]     images of these targets must be here (sdrun build)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.registries.server import Authority, RegistryProcess, lay_down

FACTS = {
    "schema": "sdrun.host/v1",
    "platform": "linux/amd64",
    "driver_version": "580.159.04",
    "cuda_driver": "13.0",
    "gpus": [],
    "wsl": False,
    "tegra": None,
    "runtime": {"name": "docker", "version": "28.5.2", "cdi_devices": [], "nvidia_runtime": True},
    "probe": "nvml",
}
GPU = {"index": 0, "uuid": "GPU-1", "name": "a GPU", "memory_mib": 81559, "mig": []}


def sdrun(*words: str, env: dict[str, str]) -> tuple[float, str]:
    """Seconds and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "sdrun", *words], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - begin, done.stdout


def resolves(server: RegistryProcess, folder: Path, env: dict[str, str]) -> dict[str, object]:
    """One resolve with nothing known, and one with the last index kept: what the registry was asked and what it sent."""
    facts = folder / "host.json"
    facts.write_text(json.dumps(FACTS | {"gpus": [GPU | {"compute_capability": "9.0"}]}))
    answers: dict[str, object] = {}
    for name in ("first", "again"):
        begun = len(server.requests())
        seconds, printed = sdrun("--quiet", "resolve", "--host", str(facts), env=env)
        asked = server.requests()[begun:]
        answers[name] = {
            "requests": len(asked),
            "statuses": [one.status for one in asked],
            "bytes": sum(one.size for one in asked if one.status == 200),
            "seconds": round(seconds, 3),
            "image": printed.strip().rpartition("@")[2],
        }
    return answers


def main(targets: list[str], record: bool) -> None:
    """Publishes each target twice and resolves twice."""
    with tempfile.TemporaryDirectory(prefix="sdrun-bench-") as name:
        folder = Path(name)
        authority = Authority(folder / "tls")
        server = RegistryProcess(folder / "registry", authority.issue("registry"))
        server.start()
        try:
            home = folder / "home"
            home.mkdir()
            lay_down(home, server.host, authority.certificate)
            env = {**os.environ, "HOME": str(home), "SDRUN_REGISTRY": f"{server.host}/team/sdrun"}
            env["SDRUN_CACHE_DIR"] = str(folder / "cache")
            rows = {}
            for target in targets:
                seconds, first = sdrun("publish", target, "--no-build", "--json", env=env)
                again, _ = sdrun("publish", target, "--no-build", "--json", env=env)
                (image,) = json.loads(first)["images"]
                rows[target] = {
                    "pull_bytes": image["size_bytes"],
                    "sent_bytes": image["sent_bytes"],
                    "seconds": round(seconds, 1),
                    "steps": image["seconds"],
                    "again_seconds": round(again, 1),
                }
            figures = {
                "registry": "docker-registry 2.8 on loopback, TLS, password",
                "images": rows,
                "resolve": resolves(server, folder, env),
            }
        finally:
            server.stop()
    if record:
        write("publish", figures)
    else:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if not word.startswith("-")], "--record" in sys.argv)
