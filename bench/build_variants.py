"""Engines with other compile-time options than the shipped ones, for a few processor minutes instead of a build each.

    sdrun render cu135-sm90 -o rendered          # its engine stage is cached where the target was built here:
    docker build --target engine -t stage rendered/sdcpp-90e87bc-cu135-sm90      # (with engine.tar in the folder)
    python bench/build_variants.py stage OUT [NAME ...]

The rows of build_variants.yaml name the macro and the files that see it. Those are compiled again by the very command that
the stage's Ninja has for them, linked before the archive that holds the shipped ones, and stripped: OUT/sd-cli-NAME.
FORCE_MMQ is not among them: on CC 7.5 and above with tensor cores ggml_cuda_should_use_mmq says yes before it looks at that
macro, and the two widths it sets in mmq.cuh are those of GPUs without them. Nor are -O3 and -use_fast_math, which every build
has.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROWS = Path(__file__).with_suffix(".yaml")
OBJECTS = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir"
SOURCES = "/src/ggml/src/ggml-cuda"
ARCHIVE = "ggml/src/ggml-cuda/libggml-cuda.a"


class Stage:
    """A container of the engine stage, in which commands run."""

    def __init__(self, image: str) -> None:
        argv = ["docker", "run", "--detach", "--rm", "--network=none", "--entrypoint=sleep", image, "3600"]
        self._id = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def run(self, script: str, data: bytes | None = None) -> str:
        """Standard output of a shell script in /build."""
        argv = ["docker", "exec", "--interactive", "--workdir=/build", self._id, "nice", "sh", "-euc", script]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, input=data).stdout.decode()

    def fetch(self, path: str, to: Path) -> None:
        """Copies a file out of the container."""
        subprocess.run(["docker", "cp", f"{self._id}:{path}", str(to)], check=True, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """Removes it."""
        subprocess.run(["docker", "rm", "--force", self._id], check=True, stdout=subprocess.DEVNULL)


def commands(stage: Stage, target: str) -> str:
    """Ninja's last command for a target: the compiler's, or the linker's."""
    return stage.run(f"ninja -t commands {target}").strip().splitlines()[-1]


def compile_all(stage: Stage, row: dict[str, Any]) -> list[str]:
    """Compiles the files of a variant; the objects' paths."""
    originals = {}
    for change in row.get("changes", ()):
        path = f"{SOURCES}/{change['file']}"
        text = stage.run(f"cat {path}")
        originals.setdefault(path, text)
        if text.count(change["old"]) != 1:
            raise SystemExit(f"{row['name']}: the text to change stands {text.count(change['old'])} times in {change['file']}")
        stage.run(f"cat > {path}", text.replace(change["old"], change["new"]).encode())
    objects = []
    for file in row.get("files", ()):
        made = f"/tmp/{row['name']}-{file}.o"
        line = commands(stage, f"{OBJECTS}/{file}.o").replace(f"-o {OBJECTS}/{file}.o", f"-o {made}")
        line = line.removeprefix("ccache ").replace("-MD ", "")
        line = re.sub(r"-M[TF] \S+ ", "", line)
        for macro in row.get("undefine", ()):
            line = line.replace(f" -D{macro} ", " ")
        defined = "".join(f" -D{macro}" for macro in row.get("define", ()))
        stage.run(line.replace(" -DGGML_MAX_NAME", f"{defined} -DGGML_MAX_NAME", 1))
        objects.append(made)
    for path, text in originals.items():
        stage.run(f"cat > {path}", text.encode())
    return objects


def driver_stub(stage: Stage, objects: list[str]) -> str:
    """A library with the soname of the driver's and the names that the objects want of it, for the linker alone."""
    wanted = set(re.findall(r" U (cu[A-Z]\w*)", stage.run(f"nm -u {shlex.join(objects)}")))
    code = "".join(f"void {name}(void) {{}}\n" for name in sorted(wanted))
    stage.run("gcc-14 -shared -x c -Wl,-soname,libcuda.so.1 -o /tmp/libcuda.so.1 -", code.encode())
    return "/tmp/libcuda.so.1"


def main(image: str, out: Path, names: list[str]) -> None:
    """Builds them all."""
    rows = {row["name"]: row for row in yaml.safe_load(ROWS.read_text(encoding="utf-8"))}
    out.mkdir(parents=True, exist_ok=True)
    stage = Stage(image)
    made: dict[str, list[str]] = {}
    try:
        for name, row in rows.items():
            if names and name not in names:
                continue
            begin = time.monotonic()
            made[name] = [*compile_all(stage, row), *(item for other in row.get("with", ()) for item in made[other])]
            extra = [driver_stub(stage, made[name])] if row.get("driver") else []
            line = commands(stage, "bin/sd-cli").replace("-o bin/sd-cli", f"-o /tmp/sd-cli-{name}")
            line = line.replace(f" {ARCHIVE} ", f" {shlex.join(made[name])} {ARCHIVE} {shlex.join(extra)} ")
            stage.run(f"{line}; strip /tmp/sd-cli-{name}")
            stage.fetch(f"/tmp/sd-cli-{name}", out / f"sd-cli-{name}")
            print(f"{name:<16}{time.monotonic() - begin:6.1f} s  {row['title']}", flush=True)
    finally:
        stage.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
