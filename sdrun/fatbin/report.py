"""What was read from a file or an image, summed up: the document sdrun.inspect/v1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdrun.core.capability import Arch
from sdrun.core.facts import CudaFacts
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.fatbin.carried import FileCode

SCHEMA = "sdrun.inspect/v1"


@dataclass(frozen=True, slots=True)
class Inspection:
    """The files with GPU code in what was inspected (`subject`: a file's path or an image's name), or the one file asked for.

    `sass`, `ptx` and `toolkit` are the engine's where files with an engine's arch list are among them, and those of all files
    otherwise: a cuBLAS beside the engine holds code for a dozen archs and says nothing about which GPUs the image serves.
    `min_driver` meets the demands of every file; None where a toolkit, and with it its floor, is not known. An engine's program
    of PTX alone, beside others of machine code, is left out: it is for GPUs that no machine code fits, and they ask for more.
    """

    subject: str
    files: tuple[FileCode, ...]
    sass: tuple[Arch, ...]
    ptx: tuple[Arch, ...]
    toolkit: CudaVersion | None
    min_driver: DriverVersion | None

    @property
    def engines(self) -> tuple[FileCode, ...]:
        """The files that carry an engine's arch list; several in an image with a binary for each arch."""
        return _engines(self.files)

    @property
    def faults(self) -> tuple[str, ...]:
        """Where files break their format, each with its file: what was read of those may be incomplete."""
        return tuple(f"{file.path}: {fault}" for file in self.files for fault in file.faults)

    def to_json(self) -> dict[str, object]:
        """The document, schema sdrun.inspect/v1."""
        return {
            "schema": SCHEMA,
            "files": [file_to_json(file) for file in self.files],
            "sass": [str(arch) for arch in self.sass],
            "ptx": [str(arch) for arch in self.ptx],
            "toolkit": str(self.toolkit) if self.toolkit else None,
            "min_driver": str(self.min_driver) if self.min_driver else None,
        }


def summed_up(subject: str, files: Iterable[FileCode], facts: CudaFacts) -> Inspection:
    """The sum over `files`."""
    files = tuple(files)
    speaking = _engines(files) or files
    toolkits = [found for file in speaking if (found := toolkit_of(file, facts)) is not None]
    return Inspection(
        subject=subject,
        files=files,
        sass=tuple(sorted({arch for file in speaking for arch in file.sass})),
        ptx=tuple(sorted({arch for file in speaking for arch in file.ptx})),
        toolkit=max(toolkits, default=None),
        min_driver=_min_driver([file for file in files if file not in _for_jit(speaking)], facts),
    )


def _engines(files: Iterable[FileCode]) -> tuple[FileCode, ...]:
    return tuple(file for file in files if file.engine_archs is not None)


def _for_jit(engines: Sequence[FileCode]) -> list[FileCode]:
    """Of several engines' programs those of PTX alone, where others have machine code."""
    natively = any(file.sass for file in engines)
    return [file for file in engines if natively and file.engine_archs is not None and file.ptx and not file.sass]


def toolkit_of(file: FileCode, facts: CudaFacts) -> CudaVersion | None:
    """The newest toolkit that had a hand in the file: what its cubins say, and the first toolkit that writes its PTX version.
    PTX of a version nobody knows makes it None: the toolkit is newer than the facts, or no toolkit's."""
    by_isa: dict[str, CudaVersion] = {}
    for version, toolkit in sorted(facts.toolkits.items()):
        by_isa.setdefault(toolkit.ptx_isa, version)
    oldest = min((tuple(map(int, isa.split("."))) for isa in by_isa), default=(0, 0))
    found = set(file.cubin_toolkits)
    for isa in file.ptx_isas:
        writer = by_isa.get(f"{isa[0]}.{isa[1]}")
        if writer is not None:
            found.add(writer)
        elif isa > oldest and not file.cubin_toolkits:
            return None
    return max(found, default=None)


def _min_driver(files: Iterable[FileCode], facts: CudaFacts) -> DriverVersion | None:
    floors: list[DriverVersion] = []
    for file in files:
        if not file.entries:
            continue
        toolkit = toolkit_of(file, facts)
        floor = None
        if toolkit is not None:
            floor = facts.min_driver(toolkit, ptx_only=not file.sass, zstd=file.compression == "zstd")
        if floor is None:
            return None
        floors.append(floor)
    return max(floors, default=None)


def file_to_json(file: FileCode) -> dict[str, object]:
    """One element of the document's `files`."""
    return {
        "path": file.path,
        "sass": [str(arch) for arch in file.sass],
        "ptx": [str(arch) for arch in file.ptx],
        "entries": file.entries,
        "fatbin_compression": file.compression,
        "engine_archs": None if file.engine_archs is None else [str(arch) for arch in file.engine_archs],
        **({"own_store": _own_store(file)} if file.stored else {}),
    }


def _own_store(file: FileCode) -> dict[str, object]:
    """Code that the file keeps outside fatbin sections, and no driver finds by itself."""
    return {
        "sections": sorted({section for section, _ in file.stored}),
        "sass": [str(arch) for arch in sorted({arch for _, arch in file.stored})],
        "entries": sum(file.stored.values()),
    }
