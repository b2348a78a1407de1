"""Inspecting what a user names: a file, an image in a tar, an image of the local container runtime or of a registry.

The readers are in sdrun.fatbin; here are the doors through which bytes come in, and the errors for what is behind none of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO

from sdrun.core.capability import ComputeCapability
from sdrun.core.facts import CudaFacts
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, NotEnoughMemory, RuntimeUnavailable
from sdrun.fatbin.carried import NotInspectable, can_hold_code, read_code
from sdrun.fatbin.pruned import Comparison, compare, read_holding
from sdrun.fatbin.report import Inspection, summed_up, toolkit_of
from sdrun.fatbin.saved import read_archive
from sdrun.fatbin.source import FileSource
from sdrun.fatbin.stream import FileStream, ReadStream
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

NOT_INSPECTABLE = "not-inspectable"
_ENDED_WITHIN = 60.0  # seconds for `save` to end once its last byte was read
_FORMS = (
    "Name an ELF file (program, shared library, object, static library), a saved image (tar), a local image, "
    "or an image of a registry (HOST/NAME:TAG)."
)


def inspect(
    subject: str, facts: CudaFacts, connect: Callable[[], ContainerRuntime], remote: Callable[[str], Inspection] | None = None
) -> Inspection:
    """What `subject` carries: a file if there is one of that name, else an image of the runtime that `connect` gives, else what
    `remote` finds under that name in a registry (asked only for names that say which: `host/name`, `owner/name:tag`).

    Raises BadConfiguration (`not-inspectable`) for what is none of these, of another format, or damaged: half a list of archs
    would be taken for the whole; RuntimeUnavailable when the runtime cannot be asked; NotEnoughMemory (`disk-full`); and what
    `remote` raises.
    """
    path = Path(subject)
    try:
        if path.exists():
            return inspect_file(path, facts)
        if not _may_be_image(subject):
            raise BadConfiguration(f"{subject}: there is no such file", _FORMS, id=NOT_INSPECTABLE)
        runtime, image, why = _local(subject, connect)
        if runtime is not None and image is not None:
            return inspect_image(subject, image, facts, runtime)
        if remote is not None and _names_registry(subject):
            return remote(subject)
        raise why or _nowhere(subject, runtime)
    except NotInspectable as fault:
        raise BadConfiguration(f"{subject} cannot be inspected: {fault}", _FORMS, id=NOT_INSPECTABLE) from None
    except OSError as fault:
        if fault.errno == 28:  # ENOSPC
            raise NotEnoughMemory(
                f"no space left to unpack {subject}: {fault.strerror}",
                f"Free space in {tempfile.gettempdir()}, or set TMPDIR to a folder on another disk.",
                id="disk-full",
            ) from None
        raise BadConfiguration(f"{subject} cannot be read: {fault.strerror}", _FORMS, id=NOT_INSPECTABLE) from None


def _may_be_image(subject: str) -> bool:
    try:
        Reference.parse(subject)
    except ValueError:
        return False
    return True


def _names_registry(subject: str) -> bool:
    """Whether an image's name also says in which registry: with its host, or as Docker Hub's OWNER/NAME with a tag or digest. A
    path without either is more likely a file that is not there, and nobody's network is asked about those."""
    first, slash, rest = subject.partition("/")
    hosted = "." in first or ":" in first or first == "localhost"
    return bool(slash) and (hosted or ":" in rest or "@" in rest)


def _local(
    subject: str, connect: Callable[[], ContainerRuntime]
) -> tuple[ContainerRuntime | None, LocalImage | None, Exception | None]:
    """The runtime and its image of that name; without a runtime the error that says so, if no registry has the image either."""
    try:
        runtime = connect()
        return runtime, runtime.image(subject), None
    except RuntimeUnavailable as fault:
        if any(mark in subject for mark in ":/@"):
            return None, None, fault
        why = f"there is no such file, and no container runtime that may have such an image: {fault.message}"
        return None, None, BadConfiguration(f"{subject}: {why}", _FORMS, id=NOT_INSPECTABLE)


def _nowhere(subject: str, runtime: ContainerRuntime | None) -> BadConfiguration:
    name = runtime.name if runtime is not None else "container runtime"
    return BadConfiguration(
        f"{subject} is neither a file nor an image of the local {name}",
        "To look into a registry, name the image with its host: registry.example/team/sdrun:TAG",
        id=NOT_INSPECTABLE,
    )


def inspect_file(path: Path, facts: CudaFacts) -> Inspection:
    """What a file on disk carries: an ELF file, or an image in a tar. Raises NotInspectable, OSError, and, for a damaged file,
    BadConfiguration."""
    if path.is_dir():
        raise NotInspectable("it is a folder")
    if not path.is_file():
        raise NotInspectable("it is no regular file")
    with path.open("rb") as file:
        head = file.read(8)
        if can_hold_code(head):
            code = read_code(FileSource(file.fileno()), str(path))
            if code.faults:
                raise BadConfiguration(
                    f"{path} cannot be inspected: {'; '.join(code.faults[:2])}",
                    "Get the file again: it is cut off or damaged, or not what its name says.",
                    id=NOT_INSPECTABLE,
                )
            return summed_up(str(path), [code], facts)
        file.seek(0)
        return summed_up(str(path), read_archive(FileStream(file)), facts)


def compare_files(path: Path, before: Path, capability: ComputeCapability, facts: CudaFacts) -> Comparison:
    """What became of the code for a GPU of `capability` in a library that was pruned: `path` held against what it was made of.
    Raises BadConfiguration (`not-inspectable`) where one of them cannot be read to its end."""
    with _comparable(path) as now, _comparable(before) as was:
        try:
            toolkit = toolkit_of(read_code(was, str(before)), facts)
            return compare(read_holding(was), read_holding(now), capability, facts, toolkit)
        except NotInspectable as fault:
            raise _incomparable(f"{path} and {before}", str(fault)) from None


@contextmanager
def _comparable(path: Path) -> Iterator[FileSource]:
    """An open file with GPU code."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            if not can_hold_code(file.read(8)):
                raise _incomparable(str(path), "it is no ELF file, static library or fatbin")
        except OSError as fault:
            raise _incomparable(str(path), fault.strerror or str(fault)) from None
        yield FileSource(file.fileno())


def _incomparable(what: str, why: str) -> BadConfiguration:
    return BadConfiguration(f"{what} cannot be compared: {why}", "Name two ELF files or static libraries.", id=NOT_INSPECTABLE)


def inspect_image(subject: str, image: LocalImage, facts: CudaFacts, runtime: ContainerRuntime) -> Inspection:
    """What an image of the local runtime carries, read from its `save` stream, nothing of it kept on disk but one large file at
    a time."""
    with saved(runtime.name, image.id) as stream:
        return summed_up(subject, read_archive(ReadStream(stream.read)), facts)


def saved(program: str, image: str) -> AbstractContextManager[IO[bytes]]:
    """The stream of `docker save` (or `podman save`), ended with the context however that ends."""
    found = shutil.which(program)
    if found is None:
        raise RuntimeUnavailable(
            f"the {program} command is not installed",
            f"Install it, or save the image elsewhere: {program} save",
            id="runtime-missing",
        )
    return _streamed([found, "save", image])


@contextmanager
def _streamed(argv: list[str]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, env={**os.environ, "LC_ALL": "C"}
        )
        assert process.stdout is not None
        try:
            try:
                yield process.stdout
            except NotInspectable:
                if process.stdout.read(1) or process.wait(_ENDED_WITHIN) == 0:
                    raise  # the stream itself is at fault, and not a runtime that broke off
            while process.stdout.read(1 << 20):
                pass  # the end-of-archive blocks behind the last member
            code = process.wait(_ENDED_WITHIN)
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != 0:
            messages.seek(0)
            why = messages.read(400).decode("utf-8", "replace").strip()
            raise RuntimeUnavailable(
                f"{Path(argv[0]).name} could not save the image: {why}",
                "Look into the container runtime's log (journalctl -u docker).",
                id="runtime-failed",
            )
