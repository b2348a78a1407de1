"""Manifests from a lock: which files, and their way into a folder, all or none."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sdrun.core.lock import Lock, LockedClass
from sdrun.core.reference import Reference
from sdrun.core.workload import Cluster, Workload
from sdrun.errors import NoImage, UsageProblem
from sdrun.fleet.affinity import CLASS_LABEL, EXCLUDE_LABEL, MAX_NAMES, home, terms
from sdrun.render import manifests as text
from sdrun.runtime.hardening import PIDS_LIMIT, STACK_BYTES, TMPFS_OPTIONS

Format = Literal["kustomize", "compose", "quadlet"]
FORMATS: tuple[str, ...] = ("kustomize", "compose", "quadlet")
_LIMITS = text.Limits(PIDS_LIMIT, STACK_BYTES, TMPFS_OPTIONS)
MARK = ".sdrun-manifests"  # names the files of a folder that was written here; one that holds others is not written anew
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")  # RFC 1123, as Kubernetes reads it
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_TOOLS_REMEDY = "Name an image with a static /bin/busybox by its digest: --tools-image REPOSITORY@sha256:..."
MAX_PROMPTS_BYTES = 900_000  # of a class: a ConfigMap holds 1 MiB


def chosen(lock: Lock, names: Sequence[str]) -> tuple[LockedClass, ...]:
    """The classes of those names, all where none is named. Raises UsageProblem, and NoImage where the lock has none."""
    if not lock.classes:
        raise NoImage("the lock has no class: no node gets an image", "See why: sdrun fleet plan", id="no-classes")
    unknown = [name for name in names if name not in {row.name for row in lock.classes}]
    if unknown:
        listed = ", ".join(row.name for row in lock.classes)
        raise UsageProblem(f"the lock has no class {unknown[0][:60]!r}", f"It has {listed}.", id="unknown-class")
    return tuple(row for row in lock.classes if not names or row.name in names)


def files(classes: Sequence[LockedClass], load: Workload, form: Format, cluster: Cluster) -> dict[str, str]:
    """File name -> text. Raises UsageProblem for what the form cannot express."""
    if form == "kustomize":
        _check_names(cluster)
        if load.kind == "prompts":
            _check_prompts(load, cluster)
        placed = [text.Placed(row, terms(row), home(row), len(row.exclude) > MAX_NAMES) for row in classes]
        return text.kubernetes(placed, load, cluster, (CLASS_LABEL, EXCLUDE_LABEL))
    if load.kind == "prompts":
        raise UsageProblem(f"{form} runs no list of prompts", "Say --kind job or server, or --format kustomize.")
    if form == "compose":
        written = {f"{row.name}/compose.yaml": text.compose(row, load, _LIMITS) for row in classes}
    else:
        written = {f"{row.name}/sdrun-{load.kind}.container": text.quadlet(row, load, _LIMITS) for row in classes}
    return written | text.checksums(load)


def _check_names(cluster: Cluster) -> None:
    """Raises UsageProblem where Kubernetes would refuse the name of the namespace or of a claim."""
    if cluster.namespace is not None and not (_LABEL.fullmatch(cluster.namespace) and len(cluster.namespace) <= 63):
        raise _bad_name("--namespace", cluster.namespace, "at most 63 lower-case letters, digits and '-'")
    for option, name in (("--model-claim", cluster.model_claim), ("--out-claim", cluster.out_claim)):
        if name is not None and not (_SUBDOMAIN.fullmatch(name) and len(name) <= 253):
            raise _bad_name(option, name, "lower-case letters, digits, '-' and '.'")


def _bad_name(option: str, name: str, allowed: str) -> UsageProblem:
    return UsageProblem(
        f"{option} {name[:70]!r} is no name that Kubernetes takes", f"Use {allowed}, a letter or digit at both ends."
    )


def _check_tools(image: str) -> None:
    try:
        digest = Reference.parse(image).digest
    except ValueError as fault:
        raise UsageProblem(f"--tools-image {fault}", _TOOLS_REMEDY) from None
    if digest is None:
        raise UsageProblem(f"--tools-image {image} has no digest, and a tag can move", _TOOLS_REMEDY)


def _check_prompts(load: Workload, cluster: Cluster) -> None:
    if cluster.tools_image is None:
        raise UsageProblem(
            "a list of prompts needs a shell that hands each pod its own, and an engine image has none",
            _TOOLS_REMEDY,
        )
    _check_tools(cluster.tools_image)
    if sum(len(prompt.encode()) for prompt in load.prompts) > MAX_PROMPTS_BYTES:
        raise UsageProblem("the prompts do not fit into a ConfigMap (900 kB)", "Split the list.")


def write(folder: Path, written: Mapping[str, str]) -> None:
    """Puts the files into `folder`, which is new, empty, or one that holds only what was written here before: that goes. Raises
    UsageProblem (`output-not-writable`); the old folder is whole until the new one is."""
    try:
        if folder.is_symlink():
            folder = folder.resolve()
        _check_ours(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary) / "new"
            fresh.mkdir()
            (fresh / MARK).write_text("".join(f"{name}\n" for name in sorted(written)), encoding="utf-8")
            for name in text.folders(written):
                (fresh / name).mkdir()
            for name, content in written.items():
                (fresh / name).write_text(content, encoding="utf-8")
                (fresh / name).chmod(0o755 if name.endswith(".sh") else 0o644)
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            fresh.rename(folder)
    except (OSError, shutil.Error) as fault:
        why = getattr(fault, "strerror", None) or fault
        raise UsageProblem(f"{folder} cannot be written: {why}", "Name another folder.", id="output-not-writable") from None


def _check_ours(folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):  # what is a file and no folder ends here
        return
    mark = folder / MARK
    ours = {MARK, *(mark.read_text(encoding="utf-8", errors="replace").splitlines() if mark.exists() else ())}
    there = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    others = sorted(name for path in there if (name := path.relative_to(folder).as_posix()) not in ours)
    if others:
        raise UsageProblem(
            f"{folder} holds files that are not sdrun's: {', '.join(others[:3])}{' ...' if others[3:] else ''}",
            "Name another folder, or move them: sdrun's own is written anew as a whole.",
            id="output-not-writable",
        )
