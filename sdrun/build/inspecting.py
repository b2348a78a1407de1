"""Inspecting what a user names: a file, an image in a tar, or an image of the local container runtime.

The readers are in sdrun.fatbin; here are the doors through which bytes come in, and the errors for what is behind none of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from sdrun.core.facts import CudaFacts
from sdrun.errors import BadConfiguration, NotEnoughMemory, RuntimeUnavailable
from sdrun.fatbin.carried import NotInspectable, can_hold_code, read_code
from sdrun.fatbin.report import Inspection, summed_up
from sdrun.fatbin.saved import read_archive
from sdrun.fatbin.source import FileSource
from sdrun.fatbin.stream import FileStream, ReadStream
from sdrun.runtime.protocol import ContainerRuntime

NOT_INSPECTABLE = "not-inspectable"
_ENDED_WITHIN = 60.0  # seconds for `save` to end once its last byte was read
# distribution/reference: what can name an image; a path with a dot or a slash in front, or with capitals, cannot
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?")
_FORMS = "Name an ELF file (program, shared library, object, static library), a saved image (tar) or a local image."


def inspect(subject: str, facts: CudaFacts, connect: Callable[[], ContainerRuntime]) -> Inspection:
    """What `subject` carries: a file if there is one of that name, else an image of the runtime that `connect` gives.

    Raises BadConfiguration (`not-inspectable`) for what is neither, of another format, or damaged: half a list of archs would
    be taken for the whole; RuntimeUnavailable when the runtime cannot be asked; NotEnoughMemory (`disk-full`).
    """
    path = Path(subject)
    try:
        if path.exists():
            return inspect_file(path, facts)
        if not _REFERENCE.fullmatch(subject):
            raise BadConfiguration(f"{subject}: there is no such file", _FORMS, id=NOT_INSPECTABLE)
        return inspect_image(subject, facts, _runtime(subject, connect))
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


def _runtime(subject: str, connect: Callable[[], ContainerRuntime]) -> ContainerRuntime:
    """The runtime to ask. Without one, a plain word is taken for the name of a file that is not there."""
    try:
        return connect()
    except RuntimeUnavailable as fault:
        if any(mark in subject for mark in ":/@"):
            raise
        raise BadConfiguration(
            f"{subject}: there is no such file, and no container runtime that may have such an image: {fault.message}",
            _FORMS,
            id=NOT_INSPECTABLE,
        ) from None


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


def inspect_image(reference: str, facts: CudaFacts, runtime: ContainerRuntime) -> Inspection:
    """What an image of the local runtime carries, read from its `save` stream, nothing of it kept on disk but one large file at
    a time. Raises NotInspectable where there is no such image."""
    image = runtime.image(reference)
    if image is None:
        raise BadConfiguration(
            f"{reference} is neither a file nor an image of the local {runtime.name}",
            f"If a registry has it, pull it first: {runtime.name} pull {reference}",
            id=NOT_INSPECTABLE,
        )
    with saved(runtime.name, image.id) as stream:
        return summed_up(reference, read_archive(ReadStream(stream.read)), facts)


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
