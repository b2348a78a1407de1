"""How long `sdrun fleet plan` takes for a cluster of 10,000 nodes, and how much memory: the whole command, from the file that
`kubectl get nodes -o json` would write to the answer.

    python bench/fleet.py [--record]

`--record` writes bench/results/fleet.json. Two clusters: `plain`, whose nodes have what planning looks at, and `whole`, whose
nodes also have what API servers add (addresses, conditions, node features, 50 cached images), indented by four as kubectl does.
"kinds" counts the different kinds of node, for each of which the resolver is asked once.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from fleets.generated import cluster  # noqa: E402  (the tests' own clusters)
from record import write  # noqa: E402

NODES, REPEATS = 10_000, 3
# Runs the command and tells its greatest memory: that of children is known to their parent only.
_MEASURED = (
    "import resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    "sys.exit(code)"
)


def grown(document: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The node with what an API server adds to it."""
    labels = document["metadata"]["labels"]
    labels |= {f"feature.node.kubernetes.io/cpu-cpuid.{number:03d}": "true" for number in range(60)}
    document["metadata"] |= {"uid": f"{draw.getrandbits(128):032x}", "annotations": {"node.alpha.kubernetes.io/ttl": "0"}}
    status = document["status"]
    status["allocatable"] = dict(status["capacity"])
    status["addresses"] = [{"type": "InternalIP", "address": "10.0.0.1"}]
    status["images"] = [
        {
            "names": [
                f"registry.example/team/image-{number}@sha256:{draw.getrandbits(256):064x}",
                f"registry.example/image:{number}",
            ],
            "sizeBytes": draw.randrange(10**9),
        }
        for number in range(50)
    ]
    return document


def index() -> dict[str, Any]:
    """An image for each capability and two toolkit lines, as the catalogue's targets would be published."""
    from sdrun.catalog.targets import targets

    rows = []
    for number, row in enumerate(targets().rows):
        rows.append(
            {
                "target": str(row.id),
                "image": f"registry.example/sdrun@sha256:{number:064x}",
                "platform": row.platform,
                "toolkit": str(row.toolkit) if row.toolkit else None,
                "sass": [str(arch) for arch in row.sass],
                "ptx": [str(arch) for arch in row.ptx],
                "fatbin_compression": row.fatbin_compression,
            }
        )
    return {"schema": "sdrun.index/v1", "engine": "sdcpp-bench", "images": rows}


def measure(folder: Path, nodes: list[dict[str, Any]]) -> dict[str, object]:
    """Medians over several runs of the command."""
    path = folder / "nodes.json"
    path.write_text(json.dumps({"apiVersion": "v1", "items": nodes, "kind": "List"}, indent=4))
    program = [
        sys.executable,
        "-m",
        "sdrun",
        "--quiet",
        "fleet",
        "plan",
        "--nodes",
        str(path),
        "--index",
        str(folder / "index.json"),
    ]
    argv = [sys.executable, "-c", _MEASURED, *program, "--assume-driver", "550.54.14", "--json"]
    walls, processor, memory = [], [], []
    for _ in range(REPEATS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        memory.append(int(done.stdout) / 1024)
    return {
        "nodes": len(nodes),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "seconds": round(statistics.median(walls), 2),
        "processor_seconds": round(statistics.median(processor), 2),
        "peak_mib": round(max(memory), 1),
        "runs": REPEATS,
    }


def kinds(nodes: list[dict[str, Any]]) -> dict[str, int]:
    """How much the planner has to think about."""
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.catalog.gpus import load_products
    from sdrun.core.index import from_json
    from sdrun.fleet.nodes import Reader
    from sdrun.fleet.planning import plan_fleet

    reader = Reader(load_products())
    live = [reader.node(document, "x") for document in nodes]
    plan = plan_fleet(live, from_json(index()), load_cuda_facts())
    return {"kinds": len({node.kind for node in live}), "classes": len(plan.classes), "refused": len(plan.refused)}


def main() -> None:
    draw = random.Random(7)
    nodes = [document for document, _ in cluster(NODES, seed=7)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index.json").write_text(json.dumps(index()))
        figures = {
            "images": len(index()["images"]),
            **kinds(nodes),
            "plain": measure(folder, nodes),
            "whole": measure(folder, [grown(document, draw) for document in nodes]),
        }
    if "--record" in sys.argv[1:]:
        write("fleet", figures)
    else:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
