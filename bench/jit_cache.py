"""What it costs to run PTX: the first run, the runs after it with what the driver compiled kept, and when it is not.

    python bench/jit_cache.py --image sdrun-control:ptx80 [--model shapes] [--only PART,PART] [-- MORE WORDS OF sdrun generate]

Needs a GPU, and an image that runs on it by PTX alone (bench/control_images.py ptx80 builds one for a GPU of 9.0). All parts
use a cache folder of this script's own, empty at the beginning, and the driver's cache lies nowhere else:

- `first`, `later`     the first run and three after it
- `another-image`      the same layers under another digest: what it compiles is its own; twice
- `not-kept`           the cache cannot be made: every run compiles
- `together`           two runs side by side on an empty cache
- `read-only`, `full`  by hand, with sdrun's own command: a filled cache mounted read-only, and one on a disk of 4 MiB
- `no-jit`             what --no-jit says

`--table JSON` prints a recorded result in Markdown, as docs/jit.md has it.

One part that fails is recorded as such and the rest goes on; everything is written after each. Pictures are compared by their
bytes with the first one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record  # noqa: E402

LATER = 3
SECONDS = 240  # a run that has not ended by then is ended
FAULTS = (OSError, subprocess.SubprocessError, ValueError, LookupError)
HERE, ESTIMATE = "in an earlier run is here", "on the first run, which takes about"


@dataclass
class Bench:
    """`work`: everything that is written; `rows`: what was measured, by part."""

    work: Path
    image: str
    words: tuple[str, ...]
    rows: dict[str, object] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """The user's cache folder of these runs."""
        return self.work / "cache"

    def environ(self, cache: Path) -> dict[str, str]:
        """sdrun importable, with that cache; models lie where they always do."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        models = {"SDRUN_MODELS_DIR": str(self.work / "models")}
        own = {"PYTHONPATH": path, "SDRUN_CACHE_DIR": str(cache), "SDRUN_STATE_DIR": str(self.work / "state"), "NO_COLOR": "1"}
        return {**os.environ, **models, **own}

    def sdrun(self, *words: str, cache: Path) -> tuple[subprocess.CompletedProcess[str], float]:
        """One command and its wall time."""
        argv = [sys.executable, "-m", "sdrun", *words]
        begin = time.perf_counter()
        done = subprocess.run(
            argv, cwd=self.work, env=self.environ(cache), capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return done, time.perf_counter() - begin

    def generate(self, image: str, *more: str, name: str = "x.png", cache: Path | None = None) -> dict[str, object]:
        """One picture: times, what was said of PTX, the picture's hash, what the cache holds then."""
        cache = cache or self.cache
        picture = self.work / name
        picture.unlink(missing_ok=True)
        words = ("generate", "--image", image, "-p", "a red circle", "--no-metadata", "-o", str(picture), *self.words)
        done, seconds = self.sdrun(*words, *more, "--json", cache=cache)
        document = json.loads(done.stdout) if done.stdout.strip() else {}
        engine = document.get("seconds", {}).get("engine")
        row: dict[str, object] = {"exit": done.returncode, "seconds": round(seconds, 2), "engine_seconds": engine}
        row |= {key: document[key] for key in ("code_path", "device", "id", "message") if document.get(key)}
        row["said"] = "here" if HERE in done.stderr else "estimate" if ESTIMATE in done.stderr else "nothing"
        if "not kept" in done.stderr or done.returncode:
            row["text"] = done.stderr[-600:]
        return row | self.left(picture, cache)

    def left(self, picture: Path, cache: Path) -> dict[str, object]:
        """The picture's hash, and what all entries of the cache hold."""
        files = [path for path in (cache / "jit").glob("*/cache/**/*") if path.is_file()]
        found = hashlib.sha256(picture.read_bytes()).hexdigest()[:16] if picture.exists() else None
        return {"picture": found, "cache_files": len(files), "cache_bytes": sum(path.stat().st_size for path in files)}

    def by_hand(self, change: Callable[[str], str]) -> dict[str, object]:
        """sdrun's own container command with its mounts changed."""
        picture = self.work / "by-hand.png"
        picture.unlink(missing_ok=True)
        words = ("generate", "--image", self.image, "-p", "a red circle", "--no-metadata", "-o", str(picture), *self.words)
        done, _ = self.sdrun(*words, "--dry-run", "--json", cache=self.cache)
        command = json.loads(done.stdout)["command"]
        if not any("target=/jit" in word for word in command):
            raise ValueError("the command mounts no cache")
        begin = time.perf_counter()
        run = subprocess.run(list(map(change, command)), capture_output=True, text=True, timeout=SECONDS, check=False)
        seconds = round(time.perf_counter() - begin, 2)
        row: dict[str, object] = {"exit": run.returncode, "seconds": seconds, **self.left(picture, self.cache)}
        return row | ({"text": (run.stdout + run.stderr)[-600:]} if run.returncode else {})


def first(bench: Bench) -> object:
    """The cache is empty."""
    return bench.generate(bench.image)


def later(bench: Bench) -> object:
    """It is filled."""
    return [bench.generate(bench.image) for _ in range(LATER)]


def another_image(bench: Bench) -> object:
    """The same image under another digest."""
    tag = "sdrun-trial-jit:again"
    made = subprocess.run(["docker", "create", bench.image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run(["docker", "commit", "--change", "LABEL io.sdrun.bench=jit", made, tag], capture_output=True, check=True)
        return [bench.generate(tag) for _ in range(2)]
    finally:
        subprocess.run(["docker", "rm", made], capture_output=True, check=False)
        subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)


def not_kept(bench: Bench) -> object:
    """A file stands where the cache would be."""
    cache = bench.work / "unusable"
    cache.mkdir()
    (cache / "jit").write_text("in the way")
    return [bench.generate(bench.image, cache=cache) for _ in range(2)]


def together(bench: Bench) -> object:
    """Both begin with nothing."""
    cache = bench.work / "shared"
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(bench.generate, bench.image, name=f"{name}.png", cache=cache) for name in ("a", "b")]
        pair = [run.result() for run in runs]
    return {"pair": pair, "after": bench.generate(bench.image, cache=cache)}


def read_only(bench: Bench) -> object:
    """What is there, without leave to add to it."""
    return bench.by_hand(lambda word: f"{word},readonly" if word.endswith("target=/jit") else word)


def full(bench: Bench) -> object:
    """A disk that is full before all is kept, twice."""
    disk = bench.work / "disk"
    disk.mkdir()

    def change(word: str) -> str:
        return f"type=bind,source={disk},target=/jit" if word.endswith("target=/jit") else word

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "sdrun-bench", str(disk)], check=True)
    try:
        rows = [bench.by_hand(change) for _ in range(2)]
        used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
        return {"runs": rows, "disk_bytes": used}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def no_jit(bench: Bench) -> object:
    """Refused before anything is started."""
    return bench.generate(bench.image, "--no-jit")


PARTS: dict[str, Callable[[Bench], object]] = {
    "first": first,
    "later": later,
    "read-only": read_only,
    "no-jit": no_jit,
    "another-image": another_image,
    "full": full,
    "together": together,
    "not-kept": not_kept,
}


def flat(value: object) -> list[dict[str, object]]:
    """All runs below `value`."""
    if isinstance(value, dict) and "seconds" in value:
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [row for one in values for row in flat(one)]


def table(rows: dict[str, object]) -> str:
    """A line for each run."""
    pictures = [row["picture"] for row in flat(rows.get("first"))]
    lines = [f"{'part':14} {'exit':>4} {'wall s':>7} {'engine s':>8} {'said':9} {'cache MB':>8}  picture"]
    for name, value in rows.items():
        for row in flat(value):
            same = "-" if row["picture"] is None else "same" if row["picture"] in pictures else "DIFFERS"
            engine, size = row.get("engine_seconds") or "-", float(str(row["cache_bytes"])) / 1e6
            said = row.get("said", "-")
            lines.append(f"{name:14} {row['exit']:>4} {row['seconds']:>7} {engine:>8} {said:9} {size:>8.1f}  {same}")
        if isinstance(value, dict) and "failed" in value:
            lines.append(f"{name:14} failed: {value['failed'][:150]}")
    return "\n".join(lines)


TITLES = {
    "first": "first run",
    "later": "every later run",
    "another-image": "another image (the same under another digest), first and second run",
    "not-kept": "cache cannot be made, first and second run",
    "together": "two side by side on an empty cache; one after them",
    "read-only": "filled cache, mounted read-only",
    "full": "disk of 4 MiB, first and second run",
    "no-jit": "`--no-jit`",
}


def markdown(document: dict[str, Any]) -> str:
    """The recorded result as a table for the documentation."""
    machine, parts = document["machine"], document["figures"]["parts"]
    pictures = [row["picture"] for row in flat(parts.get("first"))]
    lines = [f"{machine['device']}, driver {machine['driver']}, {machine['runtime']}, {document['date']}:", ""]
    lines += ["| | exit | seconds | said | kept, MB | picture |", "|---|---|---|---|---|---|"]
    for name, value in parts.items():
        rows = flat(value)
        if not rows:
            lines.append(f"| {TITLES[name]} | failed | | | | |")
            continue
        seconds, sizes = (
            ", ".join(f"{row['seconds']:.1f}" for row in rows),
            f"{max(row['cache_bytes'] for row in rows) / 1e6:.1f}",
        )
        exits, said = (", ".join(dict.fromkeys(str(row.get(key, "")) for row in rows)) for key in ("exit", "said"))
        found = {row["picture"] for row in rows}
        same = "none" if found == {None} else "the same" if found <= set(pictures) else "differs"
        lines.append(f"| {TITLES[name]} | {exits} | {seconds} | {said} | {sizes} | {same} |")
    return "\n".join(lines)


def write(bench: Bench, gpu: bool) -> None:
    """What there is so far."""
    name = "jit_cache"
    facts = record.gpu_facts() if gpu else {}
    path = record.out_folder() / (f"{name}_{record.slug(str(facts['device']))}.json" if gpu else f"{name}.json")
    figures = {"image": bench.image, "words": list(bench.words), "parts": bench.rows}
    path.write_text(json.dumps(record.document(name, figures, None, facts), indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measures, records, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="runs here by PTX alone")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print a recorded result as a table, and measure nothing")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("more", nargs="*", help="further words of sdrun generate")
    arguments = parser.parse_args()
    if arguments.table:
        print(markdown(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return
    if not arguments.image:
        parser.error("name the image: --image REFERENCE")
    parts = arguments.only.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}")
    work = Path(tempfile.mkdtemp(prefix="sdrun-jit-"))
    bench = Bench(work, arguments.image, ("-m", arguments.model, *arguments.more))
    on_cpu = "--allow-cpu" in arguments.more  # a trial of this script
    try:
        bench.sdrun("models", "pull", arguments.model, cache=bench.cache)  # a file of one's own is no catalogue's: no matter
        for name in parts:
            try:
                bench.rows[name] = PARTS[name](bench)
            except FAULTS as fault:
                bench.rows[name] = {"failed": f"{type(fault).__name__}: {fault}"}
            write(bench, gpu=not on_cpu)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(bench.rows))


if __name__ == "__main__":
    main()
