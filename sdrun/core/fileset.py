"""A model's files seen as the engine sees them: one set of tensors, divided into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sdrun.core.family import Families, Family, Kind
from sdrun.core.header import Header, TensorInfo, main_type

ALL_IN_ONE = "model"  # the role of a file that may hold every part


@dataclass(frozen=True, slots=True)
class FilePart:
    """One part of a model. `tensors` without the prefix the engine gives them; `role` of the file they came from."""

    name: str
    role: str
    tensors: tuple[TensorInfo, ...]
    kind: Kind | None = None

    @property
    def quantisation(self) -> str:
        """The type that most of its numbers have."""
        return main_type(self.tensors)


@dataclass(frozen=True, slots=True)
class FileSet:
    """The files of a model. `family` is None where it is not recognised, as with PyTorch checkpoints, whose tensors are not
    looked at. `notes` are worth telling, no reason to stop."""

    family: Family | None
    parts: Mapping[str, FilePart]
    bytes: int
    notes: tuple[str, ...] = ()

    @property
    def quantisation(self) -> str:
        """Of the diffusion model; empty where that is not known."""
        return self.parts["diffusion"].quantisation if "diffusion" in self.parts else ""


def full_names(headers: Mapping[str, Header], families: Families) -> tuple[TensorInfo, ...]:
    """All tensors with the names the engine gives them before it looks for the family: a prefix by the file's role."""
    return tuple(
        tensor if role == ALL_IN_ONE or tensor.name.startswith(prefix) else replace(tensor, name=prefix + tensor.name)
        for role, header in headers.items()
        for prefix in (families.parts[role].prefix if role in families.parts else "",)
        for tensor in header.tensors
    )


def divide(headers: Mapping[str, Header], families: Families) -> dict[str, FilePart]:
    """The parts of these files. A file given for a part is that part; an all-in-one file is divided by prefixes, and gives way
    where a part has a file of its own."""
    parts: dict[str, FilePart] = {}
    for role, header in headers.items():
        divided = _by_prefix(header, families) if role == ALL_IN_ONE else iter([(role, header.tensors)])
        for name, tensors in divided:
            if role == ALL_IN_ONE and name in headers:
                continue
            parts[name] = FilePart(name, role, tensors, families.kind_of(tensors))
    return parts


def _by_prefix(header: Header, families: Families) -> Iterator[tuple[str, tuple[TensorInfo, ...]]]:
    # Longer prefixes first: `cond_stage_model.1.` is not for `cond_stage_model.`.
    prefixes = [(prefix, part.name) for part in families.parts.values() for prefix in part.prefixes]
    prefixes.sort(key=lambda entry: -len(entry[0]))
    found: dict[str, list[TensorInfo]] = {}
    for tensor in header.tensors:
        for prefix, name in prefixes:
            if tensor.name.startswith(prefix):
                found.setdefault(name, []).append(replace(tensor, name=tensor.name[len(prefix) :]))
                break
    return ((name, tuple(tensors)) for name, tensors in found.items())
