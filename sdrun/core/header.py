"""What the header of a model file says: its tensors by name, type and shape. Values only; sdrun.models.headers reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

# The number of weights in a block and its bytes, by the type's name as ggml writes it. Source: ggml.h and ggml-common.h of
# the pinned engine; the two 8-bit floats and f64/i64 exist in safetensors only.
_SIZES = {
    1: "f64=8 i64=8 f32=4 i32=4 f16=2 bf16=2 i16=2 i8=1 f8_e4m3=1 f8_e5m2=1",
    32: "q4_0=18 q4_1=20 q5_0=22 q5_1=24 q8_0=34 iq4_nl=18 mxfp4=17",
    256: "q2_K=84 q3_K=110 q4_K=144 q5_K=176 q6_K=210 q8_K=292 iq2_xxs=66 iq2_xs=74 iq3_xxs=98 iq1_s=50 iq3_s=110 iq2_s=82"
    " iq4_xs=136 iq1_m=56 tq1_0=54 tq2_0=66",
}
BLOCKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        name: (block, int(size))
        for block, sizes in _SIZES.items()
        for name, size in (entry.split("=") for entry in sizes.split())
    }
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `type` as ggml names it (`q4_0`, `bf16`, `f8_e4m3`); `dimensions` stand fastest first, as in GGUF, also for a
    safetensors file; `bytes` as stored."""

    name: str
    type: str
    dimensions: tuple[int, ...]
    bytes: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.dimensions)

    def size(self, axis: int) -> int:
        """The dimension `axis`, 1 where there is none; axis 3 takes all slower ones with it, as the engine folds them."""
        return prod(self.dimensions[3:]) if axis == 3 else self.dimensions[axis] if axis < len(self.dimensions) else 1


@dataclass(frozen=True, slots=True)
class Header:
    """A whole model file's header. `format`: `gguf`, `safetensors`, `checkpoint` (of which only the size is known: `tensors` is
    empty); `bytes` of the file; `architecture`: what a GGUF file calls itself, empty where it does not."""

    format: str
    bytes: int
    tensors: tuple[TensorInfo, ...] = ()
    architecture: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """The type that most of the numbers in matrices have, in lower case (`q4_0`, `f16`); empty where nothing is known."""
        return main_type(self.tensors)


def main_type(tensors: Iterable[TensorInfo]) -> str:
    """The type that most of the numbers in matrices have, in lower case; empty where there are no matrices."""
    counted: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.dimensions) > 1:
            counted[tensor.type.lower()] += tensor.parameters
    return counted.most_common(1)[0][0] if counted else ""
