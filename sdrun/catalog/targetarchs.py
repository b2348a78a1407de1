"""Whether the code that a target is to hold can be had, is what its id says, and runs on some GPU of its platform."""

from __future__ import annotations

from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.code import match
from sdrun.core.decode import Fields, Malformed
from sdrun.core.engine import Engine
from sdrun.core.facts import CudaFacts
from sdrun.core.index import IndexImage
from sdrun.core.target import Target
from sdrun.core.version import CudaVersion


def check_archs(row: Fields, target: Target, toolkit: CudaVersion, engine: Engine, facts: CudaFacts, file: YamlFile) -> None:
    """What each arch must be for the toolkit, and all of them together for the id, the GPUs and the platform. What is wrong
    is noted as faults of `file`."""
    noting, able = file.collecting, True
    for name, archs in (("sass", target.sass), ("ptx", target.ptx)):
        for arch in archs:
            able &= (why := _unable(arch, name, toolkit, engine, facts)) is None
            if why is not None:
                file.fault(row.key(name), why)
    with noting():
        if not target.sass:
            raise Malformed(row.key("sass"), "is missing or empty: a CUDA target says what machine code it holds")
        if target.id.arch is not None and [arch.number for arch in target.sass] != [target.id.arch.number]:
            raise Malformed(row.key("sass"), f"must hold one arch, {target.id.arch.number}, as the id {target.id} says")
        if target.id.arch is None and len(target.sass) < 2:
            raise Malformed(row.key("sass"), "must name several archs, or the id be that of one arch")
    with noting():
        if able:
            _check_ptx(row, target, toolkit, facts)
    with noting():
        _check_platform(row, target, facts)


def _unable(arch: Arch, name: str, toolkit: CudaVersion, engine: Engine, facts: CudaFacts) -> str | None:
    """Why a build cannot hold code for `arch`, or None."""
    turned = engine.compiled_as.get(arch, arch)
    if turned != arch:
        return f"the engine compiles {arch} as {turned}; say what the binary will hold"
    if arch in facts.toolkits[toolkit].sass:
        return None
    return f"CUDA {toolkit} emits no {'machine code' if name == 'sass' else 'PTX'} for {arch}"


def _check_ptx(row: Fields, target: Target, toolkit: CudaVersion, facts: CudaFacts) -> None:
    """Every PTX must be what the driver takes on some GPU, known or to come, and what the engine expects there."""
    image = IndexImage(str(target.id), "", target.platform, toolkit, target.sass, target.ptx)
    to_come = ComputeCapability(max(known.major for known in facts.capabilities) + 1, 0)
    found = [match(image, device, mixes=False, facts=facts) for device in (*facts.capabilities, to_come)]
    compiled = {one.arch for one in found if one.path == "ptx-jit"}
    for arch in target.ptx:
        if arch not in compiled:
            why = "machine code serves those it fits, or the engine expects another arch there"
            raise Malformed(row.key("ptx"), f"no GPU would run PTX {arch}: {why}")


def _check_platform(row: Fields, target: Target, facts: CudaFacts) -> None:
    wanted = "amd64" if target.platform == "linux/amd64" else "sbsa"
    for arch in target.sass:
        known = facts.capabilities.get(arch.capability)
        if known is not None and wanted not in known.platforms:
            where = ", ".join(known.platforms)
            raise Malformed(row.key("platform"), f"{target.platform} has no GPU of {arch.capability}; they are on {where}")
