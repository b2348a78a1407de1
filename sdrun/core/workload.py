"""What runs on the nodes of a class: the engine with its arguments, the model's files on a volume, prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

WorkloadKind = Literal["server", "job", "prompts"]
KINDS: tuple[str, ...] = get_args(WorkloadKind)


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """One file of the model as it lies on the volume, below the model's folder; `sha256` None where it is not known."""

    path: str
    sha256: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Workload:
    """`program` and `arguments` of the engine, those that differ by class in `by_class` (class name -> all its arguments);
    `folder`: where on the volume the model lies; `prompts`: one picture each, for the kind `prompts` alone, whose arguments
    lack the prompt and the output."""

    kind: WorkloadKind
    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    model: str
    folder: str
    files: tuple[VolumeFile, ...]
    prompts: tuple[str, ...] = ()
    by_class: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def model_mib(self) -> int | None:
        """The size of all files together, rounded up; None where the size of one is not known."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else -(-sum(size for size in sizes if size is not None) // (1 << 20))


@dataclass(frozen=True, slots=True)
class Cluster:
    """How it is laid out in a cluster. `model_claim`, `out_claim`: names of PersistentVolumeClaims (`out_claim` None: pictures
    stay in the pod's own folder); `tools_image`: an image with a static /bin/busybox, by digest, for `prompts`."""

    namespace: str | None = None
    model_claim: str = "sdrun-models"
    out_claim: str | None = None
    replicas: int = 1
    tolerate: tuple[str, ...] = ()
    tools_image: str | None = None


def shares(total: int, weights: Sequence[int]) -> list[range]:
    """`total` things dealt out in order, as near to `weights` as whole numbers allow (largest remainders, the first of equal
    ones)."""
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights] if whole else []
    counts = [int(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_rest[: total - sum(counts)]:
        counts[place] += 1
    starts = [sum(counts[:place]) for place in range(len(counts))]
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]
