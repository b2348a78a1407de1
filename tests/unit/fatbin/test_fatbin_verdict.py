"""What inspected code does on a GPU, in one sentence."""

from __future__ import annotations

import pytest
from fatbins.files import Piece, cubin_head, elf, engine, fatbin, fixture

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.capability import ComputeCapability
from sdrun.fatbin.carried import read_code
from sdrun.fatbin.report import Inspection, summed_up
from sdrun.fatbin.source import MemorySource
from sdrun.fatbin.verdict import better_target, judge, reach, sentence

FACTS = load_cuda_facts()


def inspected(*data: bytes) -> Inspection:
    files = [read_code(MemorySource(each), f"bin/f{number}") for number, each in enumerate(data)]
    return summed_up("x", files, FACTS)


def named(**data: bytes) -> Inspection:
    """Files by path, in which `_` stands for a slash."""
    files = [read_code(MemorySource(each), path.replace("_", "/")) for path, each in data.items()]
    return summed_up("x", files, FACTS)


def made(*pieces: tuple[str, int, str]) -> bytes:
    return fatbin(
        *(
            Piece(kind, sm, suffix, version=(8, 4) if kind == "ptx" else (1, 7), payload=cubin_head(124))
            for kind, sm, suffix in pieces
        )
    )


def said(inspection: Inspection, capability: str) -> str:
    return sentence(judge(inspection, ComputeCapability.parse(capability), FACTS), inspection, FACTS)


def test_the_seed_a_binary_for_5_2_only_is_wrong_for_8_9() -> None:
    """nvcc's default target of old: the program compiled, started, found its GPU, loaded its weights, and could not run."""
    inspection = inspected(engine(fixture("cu118-sm52.fatbin"), "520"))
    verdict = judge(inspection, ComputeCapability(8, 9), FACTS)
    assert (verdict.path, verdict.reason) == (None, "no-code-for-capability")
    assert said(inspection, "8.9") == (
        "bin/f0 cannot run on a GPU of compute capability 8.9: it holds machine code for 5.2 only and no PTX."
    )
    assert better_target(ComputeCapability(8, 9), FACTS) == "cu124-sm89"


def test_on_its_own_gpu_it_runs() -> None:
    inspection = inspected(engine(fixture("cu118-sm52.fatbin"), "520"))
    assert said(inspection, "5.2") == (
        "bin/f0 runs natively on a GPU of compute capability 5.2 (sm_52), with driver 450.80.02 or newer."
    )


@pytest.mark.parametrize(
    ("pieces", "archs", "capability", "path"),
    [
        ([("cubin", 80, "")], "800", "8.6", "sass-compatible"),
        ([("cubin", 86, "")], "860", "8.0", None),
        ([("cubin", 90, "a")], "900", "9.0", "sass-exact"),
        ([("cubin", 120, "a")], "1200", "12.1", None),
        ([("cubin", 120, "f")], "1200", "12.1", "sass-compatible"),
        ([("cubin", 100, "f")], "1000", "12.0", None),
        ([("ptx", 75, "")], "750", "9.0", "ptx-jit"),
        ([("ptx", 90, "a")], "900", "12.0", None),
        ([("cubin", 75, ""), ("ptx", 75, "")], "750", "7.5", "sass-exact"),
        ([("cubin", 86, ""), ("ptx", 75, "")], "750,860", "9.0", None),  # measured on an H100: PTX 7.5 under an engine of 8.6
        ([("cubin", 86, ""), ("ptx", 86, "")], "860", "9.0", "ptx-jit"),
        ([("cubin", 86, ""), ("ptx", 75, "")], "", "9.0", "ptx-jit"),  # no engine's list, no such trap
    ],
)
def test_paths(pieces: list[tuple[str, int, str]], archs: str, capability: str, path: str | None) -> None:
    verdict = judge(inspected(engine(made(*pieces), archs)), ComputeCapability.parse(capability), FACTS)
    assert verdict.path == path


def test_an_arch_mismatch_is_told_with_both_numbers() -> None:
    inspection = inspected(engine(made(("cubin", 86, ""), ("ptx", 75, "")), "750,860"))
    assert said(inspection, "9.0") == (
        "bin/f0 does not fit a GPU of compute capability 9.0: the driver would load PTX 75, but the engine would call the "
        "kernels of 86 (it was compiled for 7.5, 8.6)."
    )


def test_an_engine_whose_list_begins_above_the_gpu() -> None:
    inspection = inspected(engine(made(("ptx", 75, "")), "860"))
    assert "the engine has no kernels for it" in said(inspection, "7.5")


def test_jit_is_told() -> None:
    told = said(inspected(made(("ptx", 75, ""))), "9.0")
    assert "only after the driver has compiled its PTX 75:" in told
    assert "the driver must be 550.54.14 or newer, as new as CUDA 12.4" in told


def test_a_library_without_code_speaks_for_the_whole() -> None:
    inspection = inspected(engine(made(("cubin", 89, "")), "890"), elf({".nv_fatbin": made(("cubin", 75, ""))}))
    assert said(inspection, "8.9").startswith("bin/f1 cannot run")


TURING, ADA = engine(made(("cubin", 75, "")), "750"), engine(made(("cubin", 89, "")), "890")
ADA_PTX = engine(made(("ptx", 89, "")), "890")


def test_the_best_of_a_programs_files_speaks() -> None:
    """As in an image with a program for each arch, between which its guard chooses."""
    inspection = named(sm75_cli=TURING, sm89_cli=ADA, ptx89_cli=ADA_PTX)
    assert judge(inspection, ComputeCapability(8, 9), FACTS).file.path == "sm89/cli"
    assert judge(inspection, ComputeCapability(7, 5), FACTS).path == "sass-exact"
    assert judge(inspection, ComputeCapability(9, 0), FACTS).file.path == "ptx89/cli"
    assert judge(inspection, ComputeCapability(7, 0), FACTS).path is None
    assert said(inspection, "7.0") == (
        "x cannot run on a GPU of compute capability 7.0: its files cli hold machine code for 7.5, 8.9 and PTX for 8.9."
    )


def test_of_several_programs_the_worst_speaks() -> None:
    inspection = named(sm75_cli=TURING, sm89_cli=ADA, sm75_server=TURING)
    verdict = judge(inspection, ComputeCapability(8, 9), FACTS)
    assert (verdict.file.path, verdict.path) == ("sm75/server", None)


def test_a_program_of_ptx_beside_machine_code_raises_no_floor() -> None:
    """It is for GPUs that the machine code does not fit; alone it decides."""
    assert str(named(sm75_cli=TURING, ptx89_cli=ADA_PTX).min_driver) == "525.60.13"
    assert str(named(ptx89_cli=ADA_PTX).min_driver) == "550.54.14"


def test_without_an_engine_the_worst_file_speaks() -> None:
    inspection = inspected(made(("cubin", 89, "")), made(("cubin", 80, ""), ("ptx", 80, "")))
    assert judge(inspection, ComputeCapability(8, 9), FACTS).path == "sass-compatible"
    assert judge(inspection, ComputeCapability(9, 0), FACTS).file.path == "bin/f0"


def test_reach_sorts_every_known_capability_once() -> None:
    found = reach(inspected(engine(made(("cubin", 75, ""), ("cubin", 86, ""), ("ptx", 86, "")), "750,860")), FACTS)
    assert [*map(str, found.native)] == ["7.5", "8.6", "8.9"]
    assert "12.0" in map(str, found.jit)
    assert sorted(found.native + found.jit + found.none) == sorted(FACTS.capabilities)


def test_a_device_by_its_new_name() -> None:
    inspection = inspected(engine(fatbin(Piece("cubin", 110, payload=b""), Piece("ptx", 110, version=(9, 0))), "1100"))
    assert judge(inspection, ComputeCapability(10, 1), FACTS).path == "sass-exact"


@pytest.mark.parametrize(("capability", "target"), [("6.1", "cu124-sm61"), ("12.0", "cu130-sm120"), ("10.1", "cu130-sm110")])
def test_what_to_build_instead(capability: str, target: str) -> None:
    assert better_target(ComputeCapability.parse(capability), FACTS) == target


def test_nothing_can_be_built_for_a_capability_nobody_knows() -> None:
    assert better_target(ComputeCapability(42, 0), FACTS) is None
