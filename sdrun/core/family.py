"""Model families and the kinds of files a model consists of: how they are recognised by their tensors. Values and rules; the
rows stand in images/families.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sdrun.core.header import TensorInfo

TextRule = Literal["any", "all", "inside", "lacking"]


@dataclass(frozen=True, slots=True)
class Marks:
    """What tensors must look like. Each of `has` stands in some name (of alternatives, one does), none of `lacks` does, and
    where there is a `tensor` (its full name, or the end of one), its dimension `axis` is `size`."""

    has: tuple[tuple[str, ...], ...] = ()
    lacks: tuple[str, ...] = ()
    tensor: tuple[str, ...] = ()
    axis: int = 0
    size: int = 0

    def hold(self, tensors: Sequence[TensorInfo]) -> bool:
        """Whether these tensors bear the marks."""
        names = "\n".join(tensor.name for tensor in tensors)
        if not all(any(text in names for text in alternatives) for alternatives in self.has):
            return False
        if any(text in names for text in self.lacks):
            return False
        return not self.tensor or any(tensor.size(self.axis) == self.size for tensor in find(tensors, self.tensor))


def find(tensors: Iterable[TensorInfo], ends: tuple[str, ...]) -> Iterable[TensorInfo]:
    """Those whose name is, or ends after a dot in, one of `ends`."""
    dotted = tuple("." + end for end in ends)
    return (tensor for tensor in tensors if tensor.name in ends or tensor.name.endswith(dotted))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model: the prefix the engine gives the names in its file, and others that mean the same in one file."""

    name: str
    prefix: str
    also: tuple[str, ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All of them."""
        return (self.prefix, *self.also)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file for a part can be. `title` with its article; `parts`: what it can be given for; `buffer_mib`: what a text
    encoder computes in, `per_pixel`: bytes an autoencoder of the usual width decodes a pixel in; 0 where not known."""

    name: str
    title: str
    parts: tuple[str, ...]
    marks: Marks
    buffer_mib: float = 0.0
    per_pixel: float = 0.0


@dataclass(frozen=True, slots=True)
class Context:
    """The tensor of the diffusion model whose dimension `axis` is `joined` times the width of the text encoder."""

    tensor: str
    axis: int
    joined: int


@dataclass(frozen=True, slots=True)
class Compute:
    """What the buffer of the diffusion model depends on; see images/families.yaml."""

    pixels: int
    text: int
    width: str
    axis: int
    head: int
    linear: float
    flash: float
    measured: bool = True
    own_vae: float = 1.0


@dataclass(frozen=True, slots=True)
class Family:
    """A shape of model the engine knows. `text`: parts with text encoders and the kinds that fit; `vae`: the kinds of
    autoencoder that fit, empty where none is needed. See images/families.yaml."""

    name: str
    title: str
    marks: Marks
    text: Mapping[str, tuple[str, ...]]
    text_rule: TextRule
    vae: tuple[str, ...]
    context: Context | None = None
    compute: Compute | None = None


@dataclass(frozen=True, slots=True)
class Families:
    """The rows of images/families.yaml, in its order."""

    parts: Mapping[str, Part]
    kinds: tuple[Kind, ...]
    families: tuple[Family, ...]
    by_kind: Mapping[str, Kind] = field(default_factory=dict)

    def kind_of(self, tensors: Sequence[TensorInfo]) -> Kind | None:
        """What a file with these tensors is, where it is a part beside the diffusion model."""
        return next((kind for kind in self.kinds if kind.marks.hold(tensors)), None)

    def family_of(self, tensors: Sequence[TensorInfo]) -> Family | None:
        """The family of a set of tensors that bear full names."""
        return next((family for family in self.families if family.marks.hold(tensors)), None)

    def find(self, name: str) -> Family | None:
        """The family of that name."""
        return next((family for family in self.families if family.name == name), None)
