"""CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER: what they ask for, applied to the facts and never to the probes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdrun.core.host import HostFacts

if TYPE_CHECKING:  # `sdrun detect` has no other use for the rules of choosing, which take 10 ms to import
    from sdrun.core.policy import DeviceOrder

_TOKEN = re.compile(r"[0-9]{1,4}|(?:GPU|MIG)-[0-9A-Za-z/-]{1,80}", re.ASCII)


def visible_devices(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The devices CUDA_VISIBLE_DEVICES names, as indexes, UUIDs (or the beginning of one) and MIG UUIDs; None where it is not
    set. As in CUDA, the list ends at the first word that names nothing (`0,-1,1` is `0`), and an empty value shows no GPU.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables"."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names: list[str] = []
    for word in value.split(","):
        if _TOKEN.fullmatch(name := word.strip()) is None:
            break
        names.append(name)
    return tuple(names)


def device_order(environ: Mapping[str, str]) -> DeviceOrder:
    """What numbers in CUDA_VISIBLE_DEVICES count: CUDA puts the fastest GPU first unless CUDA_DEVICE_ORDER is PCI_BUS_ID."""
    return "pci-bus-id" if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" else "fastest-first"


def order_note(environ: Mapping[str, str], host: HostFacts) -> list[str]:
    """A note where an index in CUDA_VISIBLE_DEVICES means one GPU here and maybe another to CUDA, which does not say how it
    finds out which of different GPUs is the fastest."""
    names = visible_devices(environ) or ()
    kinds = {(gpu.name, gpu.compute_capability) for gpu in host.gpus}
    if len(kinds) < 2 or not any(name.isdigit() for name in names) or device_order(environ) == "pci-bus-id":
        return []
    return [
        f"The GPUs of this machine differ, and CUDA_VISIBLE_DEVICES={','.join(names)} counts them fastest first, which is "
        "guessed from capability and memory: name UUIDs, or set CUDA_DEVICE_ORDER=PCI_BUS_ID."
    ]
