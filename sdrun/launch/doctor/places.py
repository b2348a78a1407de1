"""Checks of what surrounds a run: room on the disks, the cache, the registry, the clock."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from sdrun.core.plan import Plan
from sdrun.errors import SdrunError
from sdrun.launch.doctor.check import Outcome, fail, ok, skip, warn
from sdrun.launch.doctor.surroundings import Surroundings

GIB = 1 << 30
UNPACKED = (
    4  # times what is pulled: the packed layers and, at 2.8 times their size (measured on a CUDA image), the unpacked ones
)
IMAGE_BYTES = GIB  # to keep free for an image whose size is not known
MODEL_BYTES = 8 * GIB  # a FLUX.1 model at Q4_0 (6.9 GB) with room to unpack
LEAST_BYTES = 256 << 20  # below this nothing can be drawn at all: pictures, logs and the small model need it
REGISTRY_LIMIT_S = 3.0
CLOCK_SLACK_S = 24 * 3600  # files may be dated in a time zone ahead of UTC
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)


def disk_images(around: Surroundings) -> Outcome:
    """Room for the image where the container runtime keeps its layers."""
    runtime = around.runtime.or_none()
    folder = around.data_folder(runtime) if runtime is not None else None
    if folder is None:
        return skip("no container runtime on this machine")
    answer = around.answer.or_none()
    needed, what = LEAST_BYTES, "nothing is left to pull"
    if isinstance(answer, Plan) and around.local_image(answer.image) is None:
        index = around.index()
        size = next((row.size_bytes for row in index.images if row.image == answer.image), None)
        needed, what = (size or IMAGE_BYTES) * UNPACKED, f"{answer.target} needs"
    return _room(folder, needed, what, "docker system prune", warn_below=needed)


def disk_models(around: Surroundings) -> Outcome:
    """Room for a model in the store, wherever SDRUN_MODELS_DIR puts that."""
    from sdrun.models.store import store_root

    store = store_root(around.cache, around.environ)
    largest = f"du -sh {around.cache if store.is_relative_to(around.cache) else store}/*"
    return _room(store, LEAST_BYTES, "a model at Q4_0 needs about", largest, warn_below=MODEL_BYTES)


def _room(folder: Path, needed: int, what: str, remedy: str, warn_below: int) -> Outcome:
    there = _existing(folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as fault:
        return warn(f"{there} cannot be looked at: {fault.strerror}", f"ls -ld {there}")
    seen = f"{_size(free)} free at {there}"
    more = f"Free some space at {there}, for instance: {remedy}"
    if free < needed:
        return fail(f"{seen}; {what} {_size(max(needed, warn_below))}", more, 10)
    if free < warn_below:
        return warn(f"{seen}; {what} {_size(warn_below)}", more)
    return ok(seen)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def _existing(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists: where it would be made."""
    while True:
        try:
            if folder.exists() or folder == folder.parent:
                return folder
        except OSError:
            pass
        folder = folder.parent


def cache(around: Surroundings) -> Outcome:
    """The cache must be the caller's to write: a run under sudo leaves folders behind that are root's."""
    return _own(around.cache)


def state(around: Surroundings) -> Outcome:
    """Likewise the folder of the logs; without it a run works and its log is lost."""
    outcome = _own(around.state)
    return outcome if outcome.status == "ok" else warn(f"{outcome.seen}; no logs are kept", outcome.remedy or "")


def _own(folder: Path) -> Outcome:
    there = _existing(folder)
    if there.exists() and not there.is_dir():
        return fail(f"{there} is in the way of the folder {folder}", f"mv {there} {there}.old", 2)
    if not os.access(there, os.W_OK | os.X_OK):
        return fail(f"{there} cannot be written by you", f'sudo chown -R "$(id -u):$(id -g)" {there}', 2)
    if there != folder:
        return ok(f"{folder} is made on first use")
    foreign = _foreign(folder)
    if foreign is not None:
        return fail(f"{foreign} belongs to another user", f'sudo chown -R "$(id -u):$(id -g)" {folder}', 2)
    return ok(f"{folder} is yours and can be written")


def _foreign(folder: Path) -> Path | None:
    """The folder, or the first of its direct subfolders, that is another user's; root may write all of them."""
    me = os.getuid()
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return next((path for path in candidates if me != 0 and path.stat().st_uid != me), None)


def registry(around: Surroundings) -> Outcome:
    """Whether the registry answers at all; who may pull is between it and the container runtime."""
    if not around.registry:
        return skip("none named (SDRUN_REGISTRY)")
    from sdrun.catalog.config import Settings
    from sdrun.launch.sources import sources_of
    from sdrun.registry.answering import status_of

    try:
        repository = sources_of(Settings(registry=around.registry)).references[0].repository
        status = status_of(repository, REGISTRY_LIMIT_S, around.environ)
    except SdrunError as error:
        return fail(error.message, error.remedy, error.exit_code)
    if status < 500:
        return ok(f"{repository.host} answers ({status})")
    return fail(
        f"{repository.host} has a fault ({status})", "Run again later; if it stays, the registry's own log says why.", 7
    )


def clock(around: Surroundings) -> Outcome:
    """A clock that stands in the past makes every certificate invalid, and downloads fail for reasons that look like others."""
    now = around.now()
    newest = datetime.fromtimestamp(_newest_file(), UTC)
    remedy = "sudo timedatectl set-ntp true"
    seen = f"{now:%Y-%m-%d %H:%M} UTC"
    if now < EARLIEST:
        return fail(f"the clock says {seen}", remedy, 7)
    if (newest - now).total_seconds() > CLOCK_SLACK_S:
        return fail(f"the clock says {seen}, which is before this sdrun was installed ({newest:%Y-%m-%d})", remedy, 7)
    return ok(seen)


def _newest_file() -> float:
    from sdrun.resources import images_dir

    package = Path(__file__).resolve().parents[2]
    return max(path.stat().st_mtime for folder in (package, images_dir()) for path in folder.iterdir() if path.is_file())
