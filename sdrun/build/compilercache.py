"""The compiler's cache, in a folder of the user's while nobody builds: a CI job starts with what an earlier one compiled.

BuildKit's cache mounts are not part of what it exports, so the folder is copied into the mount before a build and out of it
afterwards, each by a build of two steps.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdrun.build.client import BuildClient
from sdrun.errors import RuntimeUnavailable, SdrunError, UsageProblem
from sdrun.resources import templates_dir

_WITHIN = 900  # seconds: 5 GB at most, on a slow disk


@contextmanager
def carried(client: BuildClient, base: str, folder: Path | None, say: Callable[[str], None]) -> Iterator[None]:
    """Within it the builder has what lies in `folder`, and the folder has what the builder compiled afterwards, also where the
    build failed. `base` is an image with a shell; None: nothing is carried. Raises UsageProblem with Podman, whose builds keep
    the mount where it can be kept as it is, and for a folder that cannot be written; RuntimeUnavailable where a copy fails."""
    if folder is None:
        yield
        return
    if client.kind == "podman":
        raise UsageProblem(
            "--compiler-cache is for builds by Docker", "Keep Podman's own storage between builds.", id="bad-option"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise UsageProblem(
            f"{folder} cannot be made: {fault.strerror}", "Name another folder.", id="output-not-writable"
        ) from None
    if any(folder.iterdir()):
        say(f"compiler cache: taking over {folder}")
        with tempfile.TemporaryDirectory(prefix="sdrun-") as nothing:
            _carry(client, base, "in", folder, Path(nothing))
    try:
        yield
    except SdrunError:
        with suppress(RuntimeUnavailable):  # the build's own failure is the one to tell
            _take_out(client, base, folder)
        raise
    _take_out(client, base, folder)


def _take_out(client: BuildClient, base: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sdrun-") as nothing:
        fresh = folder.with_name(f"{folder.name}.new")
        _carry(client, base, "out", Path(nothing), fresh)
    shutil.rmtree(folder)
    fresh.rename(folder)


def _carry(client: BuildClient, base: str, way: str, context: Path, to: Path) -> None:
    file = templates_dir() / "compiler-cache.Dockerfile"
    argv = [client.program, "buildx", "build", "--builder", "default"] if client.kind == "buildx" else [client.program, "build"]
    for value in (f"BASE={base}", f"WAY={way}", f"STAMP={time.time_ns()}"):
        argv += ["--build-arg", value]
    argv += ["--file", str(file), "--output", f"type=local,dest={to}", str(context)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_WITHIN, check=False, env=client.environment())
    except subprocess.TimeoutExpired:
        raise _failed(way, f"no end after {_WITHIN} seconds") from None
    if done.returncode != 0:
        raise _failed(way, done.stderr.strip()[-2000:])


def _failed(way: str, why: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        f"the compiler's cache cannot be copied {'into' if way == 'in' else 'out of'} the builder",
        "Leave --compiler-cache out, or make room on the disk.",
        id="build-cache-failed",
        detail=why,
    )
