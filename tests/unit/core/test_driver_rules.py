"""Rules 4 and 7: what a driver must be for an image, and what may happen unasked."""

from __future__ import annotations

import pytest
from resolving.samples import CPU, gpu, host, image, index

from sdrun.core.driver import combined, driver_of, jetpack_for, reachable
from sdrun.core.facts import Floor
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve
from sdrun.core.version import CudaVersion, DriverVersion

OLD, PTX, ZSTD = "driver-too-old", "ptx-newer-than-driver", "fatbin-compression-newer-than-driver"


def outcome(facts, row, **more) -> str:
    answer = resolve(host(gpu("8.9"), **more), index(row), Policy(), facts)
    return answer.code_path if isinstance(answer, Plan) else answer.rejected[0].reason


@pytest.mark.parametrize(
    ("driver", "row", "expected"),
    [
        ("450.80.02", image("cu118-a", "89"), "sass-exact"),
        ("450.80.01", image("cu118-a", "89"), OLD),
        ("450.51.05", image("cu118-a", "89"), OLD),
        ("525.60.13", image("cu129-a", "89"), "sass-exact"),
        ("525.60.12", image("cu120-a", "89"), OLD),
        ("580.65.06", image("cu135-a", "89"), "sass-exact"),
        ("580.65.05", image("cu130-a", "89"), OLD),
        ("575.57.08", image("cu130-a", "89"), OLD),
        ("700.10", image("cu118-a", "89"), "sass-exact"),
        ("550.54.14", image("cu128-a", "89", zstd=True), "sass-exact"),
        ("550.54.13", image("cu128-a", "89", zstd=True), ZSTD),
        ("525.60.13", image("cu128-a", "89", zstd=True), ZSTD),
        ("470.82", image("cu128-a", "89", zstd=True), OLD),
        ("450.80.02", image("cu118-a", "89", zstd=True), ZSTD),
        ("580.65.06", image("cu130-a", "89", zstd=True), "sass-exact"),
        ("550.54.14", image("cu124-a", "", "89"), "ptx-jit"),
        ("545.23.08", image("cu124-a", "", "89"), PTX),
        ("515.65.01", image("cu124-a", "", "89"), OLD),
        ("535.54.03", image("cu128-a", "", "89", zstd=True), PTX),
        ("580.126.01", image("cu132-a", "", "89"), PTX),  # NVIDIA/nvbandwidth#61
        ("595.45.04", image("cu132-a", "", "89"), "ptx-jit"),
        ("585.10", image("cu130-a", "", "89"), "ptx-jit"),  # a branch nobody lists speaks what the nearest lower one does
        ("585.10", image("cu131-a", "", "89"), PTX),
        ("700.10", image("cu135-a", "", "89"), PTX),  # no branch that speaks 13.5 is known
        ("450.80.02", image("cu140-a", "89"), OLD),  # a major without a known floor: its own version
        ("450.80.02", image("x", "89", toolkit="10.2"), "sass-exact"),
        ("390.157", image("x", "89", toolkit="10.2"), OLD),
        ("340.108", image("x", "89", toolkit="10.2"), OLD),
    ],
)
def test_rule_4_floors(facts, driver, row, expected) -> None:
    assert outcome(facts, row, driver_version=driver) == expected


@pytest.mark.parametrize(
    ("cuda", "row", "expected"),
    [
        ("12.2", image("cu124-a", "", "89"), PTX),
        ("12.4", image("cu124-a", "", "89"), "ptx-jit"),
        ("12.0", image("cu124-a", "89"), "sass-exact"),
        ("14.0", image("cu140-a", "89"), "sass-exact"),
        ("13.0", image("cu140-a", "89"), OLD),
    ],
)
def test_a_cuda_version_that_was_asked_for_counts_more_than_the_branch(facts, cuda, row, expected) -> None:
    assert outcome(facts, row, driver_version="580.65.06", cuda_driver=cuda) == expected


@pytest.mark.parametrize(
    ("cuda", "row", "expected"),
    [
        ("12.4", image("cu128-a", "89", zstd=True), "sass-exact"),
        ("12.3", image("cu128-a", "89", zstd=True), ZSTD),
        ("12.3", image("cu130-a", "89"), OLD),
        ("11.0", image("cu118-a", "89"), "sass-exact"),
    ],
)
def test_a_driver_known_only_by_its_cuda_version_is_measured_by_it(facts, cuda, row, expected) -> None:
    assert outcome(facts, row, driver_version=None, cuda_driver=cuda) == expected


def orin(facts, row, **more):
    machine = host(gpu("8.7"), **({"platform": "linux/arm64", "tegra": "36.4", "driver_version": "540.4.0"} | more))
    return resolve(machine, index(row | {"platform": "linux/arm64"}), Policy(), facts)


def test_a_jetson_driver_counts_by_the_cuda_version_it_speaks(facts) -> None:
    for said in ("12.6", None):  # 540.4.0 is no desktop branch; the L4T release says what it speaks
        assert isinstance(orin(facts, image("cu126-a", "", "87"), cuda_driver=said), Plan)
        assert isinstance(orin(facts, image("cu128-a", "87", zstd=True), cuda_driver=said), Plan)
    assert isinstance(orin(facts, image("cu126-a", "87"), driver_version=None), Plan)


def test_a_jetson_is_told_which_jetpack_to_install(facts) -> None:
    answer = orin(facts, image("cu130-sm87", "87"))
    assert isinstance(answer, Refusal)
    assert answer.id == "driver-too-old"
    assert answer.remedy == "Install JetPack 7.2 (L4T 39) or newer."
    assert answer.rejected[0].detail == "needs CUDA 13.0, driver speaks 12.6"


def test_a_jetson_that_ends_with_jetpack_4_is_never_told_of_another(facts) -> None:
    nano = host(gpu("5.3"), platform="linux/arm64", tegra="32.7", driver_version=None)
    answer = resolve(nano, index(image("cu118-sm53", "53", platform="linux/arm64")), Policy(), facts)
    assert isinstance(answer, Refusal)
    assert answer.id == "no-code-for-capability"
    assert answer.change.driver is None
    assert answer.change.allow_cpu


def test_what_reaches_which_gpu(facts) -> None:
    volta, turing = (facts_key for facts_key in facts.capabilities if str(facts_key) in ("7.0", "7.5"))
    plain = host(gpu("7.0"))
    beyond = Floor(DriverVersion.parse("590.44.01"), CudaVersion(13, 1))
    assert not reachable(beyond, volta, plain, facts)
    assert reachable(beyond, turing, plain, facts)
    assert not reachable(Floor(None, CudaVersion(13, 5)), volta, plain, facts)
    assert reachable(Floor(None, CudaVersion(13, 5)), turing, plain, facts)
    assert jetpack_for(Floor(None, CudaVersion(13, 5)), volta, facts) is None
    assert combined([beyond, Floor(None, CudaVersion(13, 5))]) == Floor(None, CudaVersion(13, 5))


def test_a_host_that_says_nothing_of_a_driver_has_none(facts) -> None:
    assert driver_of(host(driver_version=None), facts) is None
    assert str(driver_of(host(driver_version=None, cuda_driver="12.4"), facts)) == "CUDA 12.4"
    assert str(driver_of(host(driver_version="470.82"), facts)) == "470.82"


def test_rule_7_jit_is_allowed_said_aloud_and_forbidden_by_no_jit(facts) -> None:
    machine, rows = host(gpu("9.0")), index(image("cu124-multi", "86", "90"))
    answer = resolve(machine, rows, Policy(), facts)
    assert isinstance(answer, Plan)
    assert answer.code_path == "ptx-jit"
    assert answer.handover.jit_seconds == 40
    assert "about 40 s longer" in answer.handover.notes[0]
    refused = resolve(machine, rows, Policy(allow_jit=False), facts)
    assert isinstance(refused, Refusal)
    assert (refused.id, refused.exit_code) == ("jit-forbidden", 4)
    assert refused.remedy == "Leave out --no-jit."


def test_with_all_the_note_names_the_gpus_that_are_compiled_for(facts) -> None:
    machine = host(gpu("8.6", 0), gpu("9.0", 1), gpu("12.0", 2))
    answer = resolve(machine, index(image("cu124-multi", "86", "90")), Policy(gpu="all"), facts)
    assert isinstance(answer, Plan)
    assert answer.handover.notes[0].startswith("cu124-multi holds no machine code for compute capability 9.0, 12.0: ")


def test_machine_code_does_not_mind_no_jit(facts) -> None:
    answer = resolve(host(gpu("8.6")), index(image("cu124-multi", "86", "90")), Policy(allow_jit=False), facts)
    assert isinstance(answer, Plan)
    assert answer.handover.jit_seconds is None


@pytest.mark.parametrize("allow", [False, True])
def test_rule_7_the_cpu_is_never_chosen_silently(facts, allow) -> None:
    answer = resolve(host(gpu("7.0")), index(image("cu124-sm89", "89"), CPU), Policy(allow_cpu=allow), facts)
    if allow:
        assert isinstance(answer, Plan)
        assert (answer.target, answer.code_path, answer.devices, answer.gpu_access) == ("cpu", "cpu", (), "none")
        assert answer.handover.notes == (
            "No image runs on the GPU.",
            "The engine will run on the CPU, many times slower than on a GPU.",
        )
        assert [row.target for row in answer.rejected] == ["cu124-sm89"]
    else:
        assert isinstance(answer, Refusal)
        assert {(row.target, row.reason) for row in answer.rejected} == {
            ("cu124-sm89", "no-code-for-capability"),
            ("cpu", "cpu-not-allowed"),
        }


def test_a_gpu_that_a_newer_branch_no_longer_names_is_noted_not_refused(facts) -> None:
    answer = resolve(host(gpu("6.1"), driver_version="595.45.04"), index(image("cu124-sm61", "61")), Policy(), facts)
    assert isinstance(answer, Plan)
    assert answer.handover.notes == (
        "Driver branch 580 is the last that NVIDIA names for GPU 0 (NVIDIA 6.1, compute capability 6.1); 595.45.04 is newer.",
    )
