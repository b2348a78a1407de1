"""Products by name: the compute capability of a GPU whose node says what it is called and not what it can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sdrun.core.capability import ComputeCapability

_MAKERS = ("NVIDIA-", "Tesla-")  # older drivers say "Tesla T4", newer ones "NVIDIA ..." or neither


def bare_product(label: str) -> str:
    """A GPU Feature Discovery product without what its configuration adds.

    >>> bare_product("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED")
    'NVIDIA-A100-SXM4-40GB'
    """
    return label.removesuffix("-SHARED").partition("-MIG-")[0]


def mig_profile(label: str) -> str:
    """The MIG profile in a product label, empty where there is none.

    >>> mig_profile("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb")
    '1g.5gb'
    """
    return label.removesuffix("-SHARED").partition("-MIG-")[2]


@dataclass(frozen=True, slots=True)
class Products:
    """What images/gpus.yaml holds. `capabilities`: product in lower case -> capability; `labels`: label key -> value in lower
    case -> product; `instance_types`: (glob, product), in lower case the glob."""

    capabilities: Mapping[str, ComputeCapability]
    labels: Mapping[str, Mapping[str, str]]
    instance_types: tuple[tuple[str, str], ...]

    def capability(self, product: str) -> ComputeCapability | None:
        """The capability of a product as GPU Feature Discovery or NVML names it, or None for one that is not listed."""
        name = bare_product(product.strip().replace(" ", "-"))
        for maker in _MAKERS:
            name = name.removeprefix(maker)
        return next((self.capabilities[part] for part in _beginnings(name.lower()) if part in self.capabilities), None)

    def named_by(self, labels: Mapping[str, str], instance_type: str | None) -> tuple[str, str] | None:
        """The product that a cloud's labels or the instance type name, and the label's key; None where none does."""
        for key, values in self.labels.items():
            product = values.get(labels.get(key, "").lower())
            if product is not None:
                return product, key
        kind = (instance_type or "").lower()
        for pattern, product in self.instance_types:
            if fnmatchcase(kind, pattern):
                return product, "node.kubernetes.io/instance-type"
        return None


def _beginnings(name: str) -> Iterator[str]:
    """`name` and what is left when its last parts are taken off, longest first."""
    while name:
        yield name
        name = name.rpartition("-")[0]
