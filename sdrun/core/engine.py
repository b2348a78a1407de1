"""An engine: stable-diffusion.cpp at one pinned source, with what has to be known to build and to call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdrun.core.capability import Arch


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A source distribution on the Python package index. `subdir` is the engine's folder below the archive's own top folder."""

    name: str
    version: str
    sha256: str
    subdir: str = "."

    def __str__(self) -> str:
        return f"pypi:{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class GitSource:
    """A git repository at one commit. `submodules` are the ones to fetch, path -> commit; others stay empty folders."""

    url: str
    commit: str
    submodules: Mapping[str, str]
    subdir: str = "."

    def __str__(self) -> str:
        return f"git:{self.url}@{self.commit[:12]}"


@dataclass(frozen=True, slots=True)
class PathSource:
    """A local folder, taken as it is and named by a hash over its content. For developing an engine, not for publishing."""

    path: str

    def __str__(self) -> str:
        return f"path:{self.path}"


Source = PypiSource | GitSource | PathSource


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the engine's GPU code, or of all of the engine (`everywhere`), that no model of a picture needs. Before it is
    compiled `files` (globs below the source) are removed, then `patch` (a unified diff) is applied. `reason` says why nothing
    needs it, `instead` what happens where something asks for it all the same."""

    part: str
    files: tuple[str, ...]
    patch: str
    reason: str
    instead: str
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine row. `revision` is upstream's commit (empty for a local folder); `epoch` its date in seconds since 1970,
    which becomes SOURCE_DATE_EPOCH; `binaries` role -> file name (roles `cli`, `server`); `licence_files` lie in the source
    and go into the image, of `notice_files` the first lines do; `cmake` holds for every target, `cpu_levels[level]` for
    targets of that level, `cuda` for targets with GPU code; `compiled_as` names the archs that its build turns into others
    (ggml: 120 into 120a); `toolkit_libraries` and `cublas_libraries` are what targets with GPU code link of the toolkit
    (linker names: `cudart`), `cublas_entry_points` all that they call of the latter; `samplers` and `schedulers` are the
    names the engine accepts; `left_out` is what targets do without (see left_out_of)."""

    name: str
    title: str
    licence: str
    url: str
    version: str
    revision: str
    epoch: int
    source: Source
    binaries: Mapping[str, str]
    licence_files: tuple[str, ...]
    notice_files: tuple[str, ...]
    cmake: Mapping[str, str]
    cpu_levels: Mapping[str, Mapping[str, str]]
    cuda: Mapping[str, str]
    compiled_as: Mapping[Arch, Arch]
    samplers: tuple[str, ...]
    schedulers: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    toolkit_libraries: tuple[str, ...] = ()
    cublas_libraries: tuple[str, ...] = ()
    cublas_entry_points: tuple[str, ...] = ()

    def left_out_of(self, *, gpu_code: bool) -> tuple[LeftOut, ...]:
        """What a target does without: all parts with GPU code, those of the whole engine without."""
        return tuple(part for part in self.left_out if gpu_code or part.everywhere)
