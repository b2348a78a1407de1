"""Does the self-test catch an engine that computes wrongly? Builds engines with one mistake each and lets it look at them.

    python bench/broken_builds.py [NAME ...]

The mistakes are rows of broken_builds.yaml. Each is built like the target cpu (the compiler's cache has everything but the
changed file), tested, and removed. Results: bench/results/broken_builds.json. Exit 1 where a mistake was missed or another
family named.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import yaml

from sdrun.build.base import ensure_base
from sdrun.build.building import BuildRequest, run_build
from sdrun.build.client import find_client
from sdrun.build.source import fetch
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.render.dockerfile import CONTEXT_SOURCE, render
from sdrun.resources import cache_root
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime

ROWS = Path(__file__).with_suffix(".yaml")


def main(names: list[str]) -> None:
    """Builds, tests, records."""
    rows = [row for row in yaml.safe_load(ROWS.read_text(encoding="utf-8")) if not names or row["name"] in names]
    runtime = connect()
    figures = {}
    for row in rows:
        begin = time.monotonic()
        image = build(row, runtime)
        built = time.monotonic() - begin
        try:
            document = tested(image)
        finally:
            client = find_client(runtime.name)
            subprocess.run(client.argv("rmi", image), stdout=subprocess.DEVNULL, check=False, env=client.environment())
        found = [*document["off"], *document["suspects"]]
        figures[row["name"]] = {
            "mistake": row["mistake"],
            "family": row["family"],
            "found": found,
            "caught": found == [row["family"]],
            "message": (document["error"] or {}).get("message"),
            "probes": {probe["name"]: {key: probe[key] for key in ("status", "mean", "worst")} for probe in document["probes"]},
            "seconds_to_build": round(built, 1),
            "seconds_to_test": document["seconds"],
        }
    record.write("broken_builds", figures)
    missed = [name for name, row in figures.items() if not row["caught"]]
    if missed:
        sys.exit(f"not told for what they are: {', '.join(missed)}")


def build(row: dict[str, Any], runtime: ContainerRuntime) -> str:
    """The image with the mistake of `row`, under a name that no run takes by itself."""
    catalogue = targets()
    target = next(one for one in catalogue.rows if one.name == "cpu")
    engine, base = engines()[target.engine], catalogue.bases[target.base]
    client = find_client(runtime.name)
    start = ensure_base(base, runtime, client, print)
    tag = f"sdrun-trial:broken-{row['name']}"
    root = cache_root()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for name, text in render(target, engine, base).items():
            (context / name).write_text(text, encoding="utf-8")
        spoil(fetch(engine, root, print).tar, context / CONTEXT_SOURCE, row)
        log = root / "logs" / f"broken-{row['name']}-{os.getpid()}.log"
        run_build(client, BuildRequest(context, tag, {}, {"BASE": start.reference}), log, lambda step: None)
    return tag


def spoil(source: Path, out: Path, row: dict[str, Any]) -> None:
    """The packed source with the row's changes. Every one of them must have something to change."""
    wanted = {change["file"]: [c for c in row["changes"] if c["file"] == change["file"]] for change in row["changes"]}
    with tarfile.open(source) as old, tarfile.open(out, "w") as new:
        for member in old:
            data = old.extractfile(member) if member.isfile() else None
            content = None if data is None else data.read()
            name = member.name.removeprefix("./")
            if content is not None and name in wanted:
                text = content.decode()
                for change in wanted.pop(name):
                    if change["old"] not in text:
                        sys.exit(f"{row['name']}: {name} has no {change['old']!r}")
                    text = text.replace(change["old"], change["new"])
                content = text.encode()
                member.size = len(content)
            new.addfile(member, None if content is None else io.BytesIO(content))
    if wanted:
        sys.exit(f"{row['name']}: the source has no {', '.join(wanted)}")


def tested(image: str) -> dict[str, Any]:
    """What `sdrun selftest` says of it."""
    argv = [sys.executable, "-m", "sdrun", "selftest", "--image", image, "--gpu", "none", "--allow-cpu", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    if document["schema"] != "sdrun.selftest/v1" or (done.returncode == 9) != (document["status"] == "failed"):
        sys.exit(f"{image}: exit {done.returncode}, {document}")
    return document


if __name__ == "__main__":
    main(sys.argv[1:])
