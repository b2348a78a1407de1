"""Is a pruned library complete for the GPUs that its image serves? That part of the proof is for images from whose libraries
code of other archs was taken out: a library in the image is held against the same link of the whole ones."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

from sdrun.build.rootfs import Rootfs
from sdrun.core.capability import ComputeCapability
from sdrun.core.code import match
from sdrun.core.facts import CudaFacts
from sdrun.core.index import IndexImage
from sdrun.core.target import Target
from sdrun.fatbin import tar
from sdrun.fatbin.carried import NotInspectable, can_hold_code, read_code
from sdrun.fatbin.pruned import compare, differences, read_holding
from sdrun.fatbin.report import toolkit_of
from sdrun.fatbin.source import FileSource
from sdrun.fatbin.stream import Broken, ReadStream

_COPIED = 1 << 20


def served(target: Target, facts: CudaFacts) -> tuple[ComputeCapability, ...]:
    """The capabilities that the resolver gives this image to, exact or not: an image for 8.0 also runs on 8.6."""
    row = IndexImage(str(target.id), "", target.platform, target.toolkit, target.sass, target.ptx, target.fatbin_compression)
    known = sorted(facts.capabilities) if target.toolkit is not None else ()
    return tuple(device for device in known if match(row, device, mixes=False, facts=facts).path is not None)


def check_pruned(rootfs: Rootfs, unpruned: IO[bytes], target: Target, facts: CudaFacts) -> list[str]:
    """Every way in which a GPU that the target serves would find other code in the image's libraries than in those of the tar
    archive `unpruned` (what `docker build --target unpruned --output type=tar,dest=-` writes), which have the same names; empty
    where it finds the same. The archive is read once; the largest library of it lies in a temporary file meanwhile, and nothing
    of either is in memory but 512 MiB at most of a single cubin that nvprune has packed anew."""
    faults: list[str] = []
    devices = served(target, facts)
    compared = 0
    try:
        for member in tar.members(ReadStream(unpruned.read)):
            if member.kind != "file" or not can_hold_code(member.body.peek(8)):
                continue
            with _spooled(member) as before:
                code = read_code(before, member.path)
                if not (code.entries or code.faults):
                    continue
                compared += 1
                faults += _check_library(rootfs, member.path, before, devices, facts)
    except (Broken, NotInspectable) as fault:
        return [*faults, f"its libraries cannot be compared with the whole ones: {fault}"]
    return list(dict.fromkeys(faults)) if compared else ["there is no unpruned library to hold its own against"]


def _check_library(
    rootfs: Rootfs, whole: str, before: FileSource, devices: Sequence[ComputeCapability], facts: CudaFacts
) -> Iterator[str]:
    name = posixpath.basename(whole)
    paths = [path for path, _ in rootfs.files() if posixpath.basename(path) == name]
    if not paths:
        yield f"{name} was pruned and is not in the image"
        return
    was = read_holding(before)
    toolkit = toolkit_of(read_code(before, whole), facts)
    for path in paths:
        with _copied(rootfs, path) as after:
            now = read_holding(after)
            for device in devices:
                yield from differences(f"/{path}", compare(was, now, device, facts, toolkit))


@contextmanager
def _spooled(member: tar.Member) -> Iterator[FileSource]:
    """A member of an archive that is being read, in a temporary file."""
    with tempfile.TemporaryFile() as file:
        while data := member.body.read(_COPIED):
            file.write(data)
        file.flush()
        yield FileSource(file.fileno())


@contextmanager
def _copied(rootfs: Rootfs, path: str) -> Iterator[FileSource]:
    with ExitStack() as opened:
        content = opened.enter_context(rootfs.open(path))
        file = opened.enter_context(tempfile.TemporaryFile())
        while data := content.read(_COPIED):
            file.write(data)
        file.flush()
        yield FileSource(file.fileno())
