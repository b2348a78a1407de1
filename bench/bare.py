"""The engine of an image without a container: its program with its own libraries, started by its own loader on this machine.

python bench/bare.py IMAGE FOLDER      leaves FOLDER/sd-cli, a script that starts it, for measurements that want a program
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sdrun.core.guard import folder_of
from sdrun.core.labels import target_from_labels
from sdrun.probe.libraries import find_libraries
from sdrun.runtime.protocol import ContainerSpec, LocalImage

LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1")
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")


@dataclass(frozen=True)
class Bare:
    """An image's file system unpacked in `root`, and the engine's program in it."""

    root: Path
    program: Path

    @property
    def head(self) -> list[str]:
        """The words that start the program."""
        loader = next(self.root / name for name in LOADERS if (self.root / name).exists())
        own = [str(self.root / name) for name in LIBRARIES if (self.root / name).is_dir()]
        search = ":".join([*own, *find_libraries(Path("/"), os.environ).folders])
        return [str(loader), "--library-path", search, str(self.program)]

    def argv(self, spec: ContainerSpec) -> list[str]:
        """The command that does what the container does, with the host's paths."""
        return [*self.head, *(outside(word, spec) for word in spec.command)]

    def run(self, spec: ContainerSpec, further: Mapping[str, str], log: Path) -> float:
        """Seconds of one run in the container's own environment and `further`. Raises subprocess.CalledProcessError."""
        environ = {"PATH": os.environ["PATH"], **spec.environment, **further}
        with log.open("wb") as file:
            begin = time.perf_counter()
            subprocess.run(self.argv(spec), env=environ, stdout=file, stderr=subprocess.STDOUT, check=True)
            return time.perf_counter() - begin


def outside(word: str, spec: ContainerSpec) -> str:
    """A word of the command with a path of the container turned into the host's."""
    for mount in spec.mounts:
        if word == mount.target or word.startswith(f"{mount.target}/"):
            return str(mount.source) + word.removeprefix(mount.target)
    return word


def unpacked(image: LocalImage, folder: Path) -> Bare:
    """The image's files in `folder`. Raises subprocess.CalledProcessError."""
    root = folder / "root"
    root.mkdir(parents=True)
    container = _docker("create", image.id)
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            subprocess.run(["tar", "-x", "-C", str(root), "--exclude=dev/*"], stdin=export.stdout, check=True)
    finally:
        _docker("rm", container)
    target = target_from_labels(image.labels)
    where = folder_of(target.variants[0]) if target.toolkit else "/usr/bin"
    return Bare(root, root / where.lstrip("/") / "sd-cli")


def wrapped(image: LocalImage, folder: Path) -> Path:
    """A script that starts the image's engine with the arguments it is given, so that one word names it."""
    script = folder / "sd-cli"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(unpacked(image, folder).head)} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Unpacks, and prints the script's path."""
    from sdrun.runtime import connect

    if len(sys.argv) != 3:
        sys.exit("usage: bare.py IMAGE FOLDER")
    runtime = connect("docker")
    found = runtime.image(sys.argv[1]) or sys.exit(f"no image {sys.argv[1]} is here")
    print(wrapped(found, Path(sys.argv[2]).resolve()))
    runtime.close()


if __name__ == "__main__":
    main()
