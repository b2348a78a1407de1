"""How long `resolve` takes: one call against an index of 60 images, and 10,000 different hosts in one process.

    python bench/resolve.py [--record]

`--record` writes bench/results/resolve.json. Every host is another value (UUIDs, driver, GPUs), drawn with a fixed seed from
the catalogue's capabilities and driver branches; about a fifth has several GPUs. "first" is a call after every memory of
earlier answers was cleared; the others are as a long-running caller sees them.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sdrun import __version__
from sdrun.catalog import cuda
from sdrun.core import choose, code
from sdrun.core.capability import Arch
from sdrun.core.facts import CudaFacts
from sdrun.core.host import Gpu, HostFacts, RuntimeFacts
from sdrun.core.index import Compression, Index, IndexImage
from sdrun.core.plan import Plan
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve
from sdrun.core.version import DriverVersion

IMAGES, HOSTS, REPEATS = 60, 10_000, 5


def an_index(facts: CudaFacts) -> Index:
    """60 images: one for each (toolkit, capability) of five toolkits, some `multi`, one for the CPU."""
    rows: list[IndexImage] = []
    for toolkit in [row for row in facts.toolkits.values() if str(row.version) in ("11.8", "12.4", "12.9", "13.0", "13.4")]:
        short, zstd = toolkit.version.short, toolkit.compress_default == "zstd"
        compression: Compression = "zstd" if zstd else "lz4"
        plain = [arch for arch in toolkit.sass if not arch.suffix and arch.capability in facts.capabilities]
        multi = (tuple(plain[-2:]), tuple(plain[:4:2]))
        for name, sass, ptx in [(f"sm{arch}", (arch,), ()) for arch in plain] + [("multi", *multi)]:
            target = f"{short}-{name}"
            image = f"registry.example/sdrun@sha256:{target}"
            rows.append(IndexImage(target, image, "linux/amd64", toolkit.version, sass, ptx, compression, f"e-{target}"))
    cpu = IndexImage("cpu", "registry.example/sdrun@sha256:cpu", "linux/amd64", None)
    return Index("sdcpp-bench", (*rows[: IMAGES - 1], cpu))


def some_hosts(facts: CudaFacts, count: int) -> list[HostFacts]:
    """Hosts that differ, of every capability and branch, half of whose drivers do not say which CUDA they speak."""
    draw = random.Random(4)
    runtime = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=all",), nvidia_runtime=True)
    kinds = [row.capability for row in facts.capabilities.values() if not row.tegra]
    hosts = []
    for number in range(count):
        branch = draw.choice(facts.branches)
        gpus = tuple(
            Gpu(place, f"GPU-{number:08x}-{place}", "NVIDIA bench", draw.choice(kinds), draw.choice((8192, 24564, 81559)))
            for place in range(draw.choice((1, 1, 1, 1, 4)))
        )
        version = DriverVersion.parse(f"{branch.branch}.{draw.randrange(200)}.{draw.randrange(99):02d}")
        cuda_driver = branch.cuda if draw.random() < 0.5 else None
        hosts.append(HostFacts("linux/amd64", version, cuda_driver, gpus, runtime=runtime, probe="nvml"))
    return hosts


def forget() -> None:
    """Clears what earlier calls left in memory."""
    code.matches.cache_clear()
    choose.team_matches.cache_clear()


def measure() -> dict[str, object]:
    facts = cuda.load_cuda_facts()
    index, hosts, policy = an_index(facts), some_hosts(facts, HOSTS), Policy()
    archs = {arch for image in index.images for arch in image.sass if isinstance(arch, Arch)}
    first, again, bulk = [], [], []
    for host in hosts[:500]:
        forget()
        start = time.perf_counter()
        resolve(host, index, policy, facts)
        first.append(time.perf_counter() - start)
    for host in hosts[:500]:
        renewed = replace(host, notes=("again",))
        start = time.perf_counter()
        resolve(renewed, index, policy, facts)
        again.append(time.perf_counter() - start)
    for _ in range(REPEATS):
        forget()
        start = time.perf_counter()
        answers = [resolve(host, index, policy, facts) for host in hosts]
        bulk.append(time.perf_counter() - start)
    load = []
    for _ in range(20):
        cuda._load.cache_clear()
        start = time.perf_counter()
        cuda.load_cuda_facts()
        load.append(time.perf_counter() - start)
    verdicts = Counter("ok" if isinstance(answer, Plan) else answer.id for answer in answers)
    return {
        "images": len(index.images),
        "archs": len(archs),
        "hosts": len(hosts),
        "one_call_first_ms": {"median": _ms(first), "largest": round(max(first) * 1e3, 3)},
        "one_call_again_ms": {"median": _ms(again), "largest": round(max(again) * 1e3, 3)},
        "all_hosts_s": {"median": round(statistics.median(bulk), 3), "runs": [round(value, 3) for value in bulk]},
        "load_facts_ms": {"median": _ms(load)},
        "answers": dict(verdicts.most_common()),
    }


def _ms(values: list[float]) -> float:
    return round(statistics.median(values) * 1e3, 3)


def main() -> None:
    result = {
        "what": "resolve() and load_cuda_facts(), wall time",
        "command": "python bench/resolve.py --record",
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{platform.machine()}, {os.cpu_count()} CPUs, shared",
        "versions": {"sdrun": __version__, "python": platform.python_version(), "system": platform.system()},
        **measure(),
    }
    text = json.dumps(result, indent=1) + "\n"
    sys.stdout.write(text)
    if "--record" in sys.argv[1:]:
        (Path(__file__).parent / "results" / "resolve.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
