"""What happens to inspected code on a GPU of a given compute capability: rules 2, 3 and 5 of resolving, applied to what was
read instead of to what an index says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.code import loadable_ptx, loadable_sass
from sdrun.core.facts import CudaFacts
from sdrun.core.plan import CodePath
from sdrun.core.version import CudaVersion
from sdrun.fatbin.carried import FileCode
from sdrun.fatbin.report import Inspection, toolkit_of

_ORDER: tuple[CodePath | None, ...] = ("sass-exact", "sass-compatible", "ptx-jit", None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a file runs on a device. `path` None: not at all, for `reason`; `arch` is what the driver loads, where it loads
    anything (`jit`: it is PTX), and `believed` the arch whose kernels the engine would call (None: it has no list, or nothing
    in it fits)."""

    capability: ComputeCapability
    file: FileCode
    path: CodePath | None
    arch: Arch | None
    reason: Literal["no-code-for-capability", "arch-mismatch"] | None = None
    believed: Arch | None = None
    jit: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """The known capabilities by what happens on them."""

    native: tuple[ComputeCapability, ...]
    jit: tuple[ComputeCapability, ...]
    none: tuple[ComputeCapability, ...]


def reach(inspection: Inspection, facts: CudaFacts) -> Reach:
    """What happens on every capability the facts know."""
    paths = {capability: judge(inspection, capability, facts).path for capability in sorted(facts.capabilities)}
    return Reach(
        tuple(capability for capability, path in paths.items() if path in ("sass-exact", "sass-compatible")),
        tuple(capability for capability, path in paths.items() if path == "ptx-jit"),
        tuple(capability for capability, path in paths.items() if path is None),
    )


def judge(inspection: Inspection, capability: ComputeCapability, facts: CudaFacts) -> Verdict:
    """The verdict on the whole. A file without code for the device speaks for all, since a program needs every library it
    brings; else, of each of the engine's programs, the best of its files (an image may have one for each arch, between which a
    guard chooses), and of these the worst; or, where there is no engine, the file that does worst. Needs at least one file."""
    verdicts = [judge_file(file, capability, facts) for file in inspection.files if file.entries]
    if not verdicts:
        return Verdict(capability, inspection.files[0], None, None, "no-code-for-capability")
    programs: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.file.engine_archs is not None:
            programs.setdefault(verdict.file.path.rpartition("/")[2], []).append(verdict)
    others = [verdict for verdict in verdicts if verdict.file.engine_archs is None]
    if not programs:
        return _worst(others)
    chosen = _worst([min(files, key=lambda verdict: _ORDER.index(verdict.path)) for files in programs.values()])
    missing = [verdict for verdict in others if verdict.path is None]
    return missing[0] if missing and chosen.path is not None else chosen


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=lambda verdict: _ORDER.index(verdict.path))


def judge_file(file: FileCode, capability: ComputeCapability, facts: CudaFacts) -> Verdict:
    """The verdict on one file."""
    toolkit = toolkit_of(file, facts)
    device = capability if toolkit is None else facts.named_by(toolkit, capability)
    sass = loadable_sass(file.sass, device, mixes=False, facts=facts)
    arch = sass or loadable_ptx(file.ptx, device, facts)
    if arch is None:
        return Verdict(capability, file, None, None, "no-code-for-capability")
    if file.engine_archs is not None:
        believed = _believed(file.engine_archs, device)
        if believed is None or believed.number != arch.number:
            return Verdict(capability, file, None, arch, "arch-mismatch", believed, jit=sass is None)
    path: CodePath = "ptx-jit" if sass is None else "sass-exact" if arch.number == device.number else "sass-compatible"
    return Verdict(capability, file, path, arch, jit=sass is None)


def _believed(archs: Iterable[Arch], device: ComputeCapability) -> Arch | None:
    """ggml calls the kernels of the highest arch in its list that is not above the device (ggml_cuda_highest_compiled_arch)."""
    return max((arch for arch in archs if arch.number <= device.number), default=None)


def sentence(verdict: Verdict, inspection: Inspection, facts: CudaFacts) -> str:
    """The verdict in one sentence a user can act on."""
    name, device = verdict.file.path, f"a GPU of compute capability {verdict.capability}"
    driver = f", with driver {inspection.min_driver} or newer" if inspection.min_driver else ""
    if verdict.path in ("sass-exact", "sass-compatible"):
        exactly = "" if verdict.path == "sass-exact" else ", code of the same major that it takes"
        return f"{name} runs natively on {device} (sm_{verdict.arch}{exactly}){driver}."
    if verdict.path == "ptx-jit":
        return (
            f"{name} runs on {device} only after the driver has compiled its PTX {verdict.arch}: the first start is slow, and "
            f"the driver must be {_as_new_as(toolkit_of(verdict.file, facts), facts)}."
        )
    if verdict.reason == "arch-mismatch":
        believed = f"would call the kernels of {verdict.believed}" if verdict.believed else "has no kernels for it"
        loaded = f"{'PTX ' if verdict.jit else 'sm_'}{verdict.arch}"
        return (
            f"{name} does not fit {device}: the driver would load {loaded}, but the engine {believed} "
            f"(it was compiled for {_listed(verdict.file.engine_archs or ())})."
        )
    program = name.rpartition("/")[2]
    beside = [file for file in inspection.engines if file.path.rpartition("/")[2] == program]
    if verdict.file in beside and len(beside) > 1:
        sass, ptx = sorted({a for file in beside for a in file.sass}), sorted({a for file in beside for a in file.ptx})
        return f"{inspection.subject} cannot run on {device}: its files {program} hold {_held(sass, ptx)}."
    return f"{name} cannot run on {device}: it holds {holdings(verdict.file)}."


def _as_new_as(toolkit: CudaVersion | None, facts: CudaFacts) -> str:
    """What PTX asks of the driver: no older than the toolkit that wrote it."""
    if toolkit is None:
        return "at least as new as that PTX"
    driver = facts.driver_of(toolkit)
    return f"{driver} or newer, as new as CUDA {toolkit}" if driver else f"as new as CUDA {toolkit}"


def holdings(file: FileCode) -> str:
    """`machine code for 5.2 only and no PTX`: what a file holds, in words."""
    if not file.entries:
        return "link-time code only, which no driver loads" if file.archs("lto") else "no CUDA code at all"
    return _held(file.sass, file.ptx)


def _held(sass: Sequence[Arch], ptx: Sequence[Arch]) -> str:
    only = " only" if len(sass) == 1 else ""
    native = f"machine code for {_listed(sass)}{only}" if sass else "no machine code"
    return f"{native} and {f'PTX for {_listed(ptx)}' if ptx else 'no PTX'}"


def _listed(archs: Iterable[Arch]) -> str:
    return ", ".join(f"{arch.capability}{arch.suffix}" for arch in archs)


def better_target(capability: ComputeCapability, facts: CudaFacts) -> str | None:
    """The target to build for a capability: exact machine code by the toolkit the facts suggest first, or None where no known
    toolkit emits it."""
    row = facts.capabilities.get(capability)
    for toolkit in (*facts.suggest, *sorted(facts.toolkits)) if row is not None else ():
        named = facts.named_by(toolkit, capability)
        if Arch(named.number) in facts.toolkits[toolkit].sass:
            return f"{toolkit.short}-sm{named.number}"
    return None
