"""Is the GPU code in a finished image what its target promises? The engine's and its libraries' are looked at apart."""

from __future__ import annotations

from collections.abc import Iterable

from sdrun.core.capability import Arch
from sdrun.core.engine import Engine
from sdrun.core.facts import CudaFacts
from sdrun.core.guard import folder_of
from sdrun.core.target import Target, Variant
from sdrun.fatbin.carried import FileCode
from sdrun.fatbin.report import Inspection, summed_up, toolkit_of
from sdrun.fatbin.verdict import judge_file


def check_code(inspection: Inspection, target: Target, engine: Engine, facts: CudaFacts) -> list[str]:
    """Every way in which the code differs from `target`'s row; empty where it is exactly that.

    Each program of each variant must hold the promised machine code and PTX and no other, compressed as promised, made by the
    promised toolkit, and must itself believe to have been compiled for these archs. A library may hold more, but must have code
    for each GPU the machine code is for, and must not ask for a newer driver than the target says.
    """
    files = {file.path: file for file in inspection.files}
    programs = {
        f"{folder_of(variant)}/{name}".lstrip("/"): variant for variant in target.variants for name in engine.binaries.values()
    }
    faults = [*inspection.faults]
    if target.toolkit is None:
        return faults + [f"/{path} holds GPU code" for path in files]
    for path in sorted(programs):
        if path in files:
            faults += _check_engine(files[path], programs[path], target, facts)
        else:
            faults.append(f"/{path} holds no GPU code")
    for path in sorted(set(files) - set(programs)):
        faults += _check_library(files[path], target, facts)
    # A program of PTX alone demands more, but serves only GPUs that no machine code fits; the guard asks it of their drivers.
    common = [file for path, file in files.items() if path not in programs or programs[path].sass or not target.sass]
    needs, promised = summed_up("", common, facts).min_driver, target.min_driver
    if needs is not None and promised is not None and needs.numbers > promised.numbers:
        faults.append(f"its code needs driver {needs}, and the target promises {promised}")
    return faults


def _check_engine(file: FileCode, variant: Variant, target: Target, facts: CudaFacts) -> list[str]:
    faults = []
    for kind, found, promised in (("machine code", file.sass, variant.sass), ("PTX", file.ptx, variant.ptx)):
        if found != promised:
            faults.append(f"/{file.path} holds {kind} for {_words(found)}, and the target promises {_words(promised)}")
    if file.compression != target.fatbin_compression:
        promise = f"the target promises {target.fatbin_compression}"
        faults.append(f"/{file.path} is compressed with {file.compression}, and {promise}")
    expected = tuple(sorted({Arch(arch.number) for arch in (*variant.sass, *variant.ptx)}))
    if file.engine_archs != expected:
        faults.append(f"/{file.path} believes to be compiled for {_words(file.engine_archs or ())}, not {_words(expected)}")
    made_by = toolkit_of(file, facts)
    if made_by is not None and made_by != target.toolkit:
        faults.append(f"/{file.path} was made by CUDA {made_by}, not {target.toolkit}")
    return faults


def _check_library(file: FileCode, target: Target, facts: CudaFacts) -> list[str]:
    lacking = [arch for arch in target.sass if file.entries and judge_file(file, arch.capability, facts).path is None]
    return [f"/{file.path} has no code that runs on {_words(lacking)}"] if lacking else []


def _words(archs: Iterable[Arch]) -> str:
    return ", ".join(map(str, archs)) or "nothing"
