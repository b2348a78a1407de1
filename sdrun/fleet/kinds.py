"""What a node's labels and resources say of its GPUs and driver -> NodeKind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Malformed
from sdrun.core.node import GPU_RESOURCE, NodeGpu, NodeKind, Selector, Trouble
from sdrun.core.platform import parse_platform
from sdrun.core.product import Products, bare_product, mig_profile
from sdrun.core.version import DriverVersion
from sdrun.fleet import gfd

_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
_AKS = "kubernetes.azure.com/accelerator"
_ARCH, _OS = "kubernetes.io/arch", "kubernetes.io/os"
KEYS = (*gfd.KEYS, _INSTANCE_TYPE, _AKS, _ARCH, _OS)  # the labels that are read, beside those of the table of products
_GFD = "https://github.com/NVIDIA/k8s-device-plugin"


def read_kind(
    labels: Mapping[str, str],
    told: tuple[object, object],
    capacity: Mapping[str, str] | None,
    products: Products,
    assumed: DriverVersion | None,
) -> NodeKind:
    """The kind of a node. `told`: operating system and architecture as its kubelet reports them; `capacity`: its amounts of
    nvidia.com resources, None where the document has no capacity at all; `assumed`: the driver of nodes that state none."""
    platform = _platform(labels, told)
    try:
        return _Gathering(platform, labels, capacity, products, assumed).kind()
    except gfd.BadLabel as fault:
        trouble = Trouble("bad-labels", 8, f"A label cannot be: {fault}.", f"Correct it, or restart what writes it ({_GFD}).")
        return NodeKind(platform, trouble=trouble)


def _platform(labels: Mapping[str, str], told: tuple[object, object]) -> str:
    system = str(told[0] or labels.get(_OS) or "linux")
    text = f"{system}/{told[1] or labels.get(_ARCH) or 'amd64'}"
    try:
        return parse_platform(text)
    except ValueError as fault:
        raise Malformed("status.nodeInfo", str(fault)) from None


class _Gathering:
    """The facts of one kind while they are put together."""

    def __init__(
        self,
        platform: str,
        labels: Mapping[str, str],
        capacity: Mapping[str, str] | None,
        products: Products,
        assumed: DriverVersion | None,
    ) -> None:
        self.platform, self.labels, self.products, self.assumed = platform, labels, products, assumed
        self.counted = capacity is not None
        self.resources = gfd.resources(capacity or {})
        self.notes: list[str] = []

    def kind(self) -> NodeKind:
        cloud = self.products.named_by(self.labels, self.labels.get(_INSTANCE_TYPE))
        if not (cloud or self.resources or self._labelled()):
            return self._refused(
                "no-gpu",
                3,
                "Nothing says that it has an NVIDIA GPU: no label of GPU Feature Discovery or of a cloud, no nvidia.com "
                "resource.",
                f"If it has one, install NVIDIA's device plugin with GPU Feature Discovery ({_GFD}), or list it in an "
                "inventory.",
            )
        resource = self._resource()
        product = self.labels.get(f"{resource}.product") or self.labels.get(gfd.PRODUCT, "")
        broken = self._broken(product)
        if broken is not None:
            return broken
        found = self._capability(product, resource, cloud)
        if found is None:
            return self._refused(
                "capability-unknown",
                3,
                f"Its compute capability is not known: {f'{product} is a new product' if product else 'no label names it'}.",
                f"Install GPU Feature Discovery ({_GFD}), or list the node in an inventory.",
            )
        capability, style, name = found
        return self._complete(resource, capability, style, name or "NVIDIA GPU")

    def _labelled(self) -> bool:
        marks = (gfd.PRODUCT, gfd.CC_MAJOR, gfd.PRESENT)
        return any(self.labels.get(key) not in (None, "false") for key in marks) or self.labels.get(_AKS) == "nvidia"

    def _refused(self, id: str, exit_code: int, message: str, remedy: str) -> NodeKind:
        return NodeKind(self.platform, trouble=Trouble(id, exit_code, message, remedy), notes=tuple(self.notes))

    def _resource(self) -> str:
        """What a pod asks for: whole GPUs where there are any, else the MIG profile with the most memory."""
        held = [name for name, amount in self.resources.items() if amount]
        whole = [name for name in (GPU_RESOURCE, f"{GPU_RESOURCE}.shared") if name in held]
        slices = sorted((name for name in held if gfd.mig_of(name)), key=lambda name: (-(self._memory(name) or 0), name))
        if not held and self.counted:
            self.notes.append("no nvidia.com resource: the device plugin does not run there, so no pod can be given a GPU yet")
        if len(whole) + len(slices) > 1:
            others = ", ".join((*whole, *slices)[1:])
            self.notes.append(f"further GPU resources that this plan does not use: {others}")
        return next(iter((*whole, *slices)), GPU_RESOURCE)

    def _memory(self, resource: str) -> int | None:
        found = gfd.count(self.labels, f"{resource.removesuffix('.shared')}.memory")
        return found or None

    def _broken(self, product: str) -> NodeKind | None:
        """A node whose labels speak of another state than it is in: a MIG layout that cannot be, or several models."""
        if mig_profile(product) == "INVALID":
            return self._refused(
                "gpu-access-unavailable",
                6,
                "Its MIG layout does not suit mig.strategy=single: slices of several sizes, or MIG on some GPUs only.",
                "Give all its GPUs the same MIG layout, or set mig.strategy=mixed.",
            )
        count = gfd.count(self.labels, gfd.COUNT)
        whole = sum(amount for name, amount in self.resources.items() if not gfd.mig_of(name))
        if count and whole > count * (gfd.count(self.labels, gfd.REPLICAS) or 1):
            stated = gfd.capability(self.labels)
            refused = self._refused(
                "mixed-gpus",
                4,
                f"It has more GPUs ({whole}) than its labels speak of ({count} {product}): it holds several models, and a pod "
                "may be given any of them.",
                "Give the node one model, or list it with all its GPUs in an inventory.",
            )
            return replace(refused, gpus=(NodeGpu(product, stated),)) if stated else refused
        return None

    def _capability(
        self, product: str, resource: str, cloud: tuple[str, str] | None
    ) -> tuple[ComputeCapability, str, str] | None:
        """The capability, how it was found (`labels`, `product`, `cloud`), and the product's name."""
        own = bare_product(self.labels.get(gfd.PRODUCT, ""))
        stated = gfd.capability(self.labels)
        if stated is not None and (not product or bare_product(product) == own):
            return stated, "labels", product
        known = self.products.capability(product) if product else None
        if known is not None:
            self.notes.append(f"compute capability {known} by the product's name, {product}")
            return (
                known,
                "product" if resource == GPU_RESOURCE and product == self.labels.get(gfd.PRODUCT) else "cloud",
                product,
            )
        if stated is None and cloud is not None:
            name, key = cloud
            known = self.products.capability(name)
            if known is not None:
                self.notes.append(f"compute capability {known} by {key}")
                return known, "cloud", f"NVIDIA-{name}"
        return None

    def _complete(self, resource: str, capability: ComputeCapability, style: str, product: str) -> NodeKind:
        version = gfd.version(self.labels)
        driver = version.driver if version else self.assumed
        if driver is None:
            return self._refused(
                "driver-unknown",
                3,
                "Its driver version is not known: no label states it.",
                f"Install GPU Feature Discovery ({_GFD}), say --assume-driver VERSION, or list the node in an inventory.",
            )
        if version is None:
            self.notes.append(f"driver assumed to be {driver}")
        self._note_sharing(resource, product)
        selector = "class-label" if version is None or style == "cloud" else version.style + ("-product" * (style == "product"))
        profile = gfd.mig_of(resource) or mig_profile(product)
        gpu = NodeGpu(bare_product(product), capability, self._memory(resource), self._count(resource))
        return NodeKind(
            platform=self.platform,
            gpus=(gpu,),
            driver=driver,
            cuda=version.cuda if version else None,
            resource=resource,
            mig=profile,
            selector=cast("Selector", selector),
            product_label=self.labels.get(gfd.PRODUCT, ""),
            notes=tuple(self.notes),
        )

    def _count(self, resource: str) -> int:
        return gfd.count(self.labels, f"{resource.removesuffix('.shared')}.count") or self.resources.get(resource) or 1

    def _note_sharing(self, resource: str, product: str) -> None:
        base = resource.removesuffix(".shared")
        replicas = gfd.count(self.labels, f"{base}.replicas") or 1
        if replicas > 1 or resource.endswith(".shared") or product.endswith("-SHARED"):
            how = {"mps": "MPS"}.get(self.labels.get(f"{base}.sharing-strategy", ""), "time-slicing")
            many = f"up to {replicas}" if replicas > 1 else "several"
            self.notes.append(f"shared by {how}: {many} pods use one GPU and its memory")
