"""Which refusal when every image is rejected, and that its remedy is the nearest one that really works."""

from __future__ import annotations

from dataclasses import replace

import pytest
from resolving.samples import CPU, gpu, host, image, index

from sdrun.core.capability import Arch
from sdrun.core.change import applied
from sdrun.core.choose import Request
from sdrun.core.facts import Floor
from sdrun.core.plan import Refusal
from sdrun.core.policy import Build, Change, Policy
from sdrun.core.resolve import resolve
from sdrun.core.version import CudaVersion, DriverVersion


def refused(facts, machine, *rows, **asked) -> Refusal:
    answer = resolve(machine, index(*rows), Policy(**asked), facts)
    assert isinstance(answer, Refusal), answer
    return answer


ADA = gpu("8.9")
LABEL = "GPU 0 (NVIDIA 8.9, compute capability 8.9)"


def test_a_newer_driver_alone_helps(facts) -> None:
    machine = host(ADA, driver_version="470.82")
    answer = refused(facts, machine, image("cu130-sm89", "89"), image("cu124-sm89", "89"), CPU)
    assert (answer.id, answer.exit_code) == ("driver-too-old", 5)
    assert answer.message == f"Driver 470.82 is too old: cu124-sm89 for {LABEL} needs NVIDIA driver 525.60.13 or newer."
    assert answer.remedy == "Install NVIDIA driver 525.60.13 or newer."


@pytest.mark.parametrize(
    ("row", "driver", "remedy"),
    [
        (image("cu124-x", "", "80"), "525.60.13", "Install NVIDIA driver 550.54.14 or newer."),
        (image("cu128-x", "89", zstd=True), "525.60.13", "Install NVIDIA driver 550.54.14 or newer."),
        (image("cu129-x", "", "80", zstd=True), "470.82", "Install NVIDIA driver 575.51.03 or newer."),
        (image("cu135-x", "", "80"), "580.65.06", "Install an NVIDIA driver that speaks CUDA 13.5 or newer."),
        (image("cu140-x", "89"), "580.65.06", "Install an NVIDIA driver that speaks CUDA 14.0 or newer."),
    ],
)
def test_the_version_to_install_meets_every_demand_of_the_image(facts, row, driver, remedy) -> None:
    answer = refused(facts, host(ADA, driver_version=driver), row)
    assert answer.id == "driver-too-old"
    assert answer.remedy == remedy


def test_a_driver_whose_number_would_do_but_that_speaks_less(facts) -> None:
    answer = refused(facts, host(ADA, driver_version="580.65.06", cuda_driver="12.2"), image("cu124-x", "", "80"))
    assert answer.remedy == "Install an NVIDIA driver that speaks CUDA 12.4 or newer."


def test_a_newer_driver_comes_before_a_flag(facts) -> None:
    machine = host(ADA, driver_version="535.54.03")
    answer = refused(facts, machine, image("cu118-x", "", "80"), image("cu130-sm89", "89"), allow_jit=False)
    assert answer.id == "driver-too-old"


def test_no_image_holds_code(facts) -> None:
    answer = refused(facts, host(gpu("6.1"), driver_version="550.54.14"), image("cu130-sm89", "89"), CPU)
    assert (answer.id, answer.exit_code) == ("no-code-for-capability", 4)
    assert answer.message == (
        "No published image holds code for compute capability 6.1 on linux/amd64: GPU 0 (NVIDIA 6.1, compute capability 6.1)."
    )
    assert answer.remedy == "Build and publish the target cu124-sm61 (sdrun build cu124-sm61)."
    build = Build("cu124-sm61", "linux/amd64", CudaVersion(12, 4), (Arch(61),))
    assert answer.change == Change(build=build)


@pytest.mark.parametrize(
    ("cc", "driver", "target"),
    [
        ("5.0", "580.65.06", "cu124-sm50"),
        ("7.0", "525.60.13", "cu124-sm70"),
        ("8.9", "515.65.01", "cu118-sm89"),
        ("9.0", "470.82", "cu118-sm90"),
        ("8.6", "570.26", "cu124-sm86"),
        ("10.0", "580.65.06", "cu130-sm100"),
        ("10.0", "570.26", "cu129-sm100"),
        ("12.0", "575.51.03", "cu129-sm120"),
        ("12.1", "580.65.06", "cu130-sm121"),
        ("10.1", "580.65.06", "cu130-sm110"),
        ("10.1", "575.51.03", "cu129-sm101"),
        ("10.7", "580.65.06", "cu134-sm107"),
        ("8.8", "590.44.01", "cu130-sm88"),
    ],
)
def test_the_target_to_build_is_one_that_exists_and_that_the_driver_serves(facts, cc, driver, target) -> None:
    answer = refused(facts, host(gpu(cc), driver_version=driver))
    assert answer.id == "no-code-for-capability"
    assert answer.change.build is not None
    assert answer.change.build.target == target
    assert answer.change.driver is None


def test_a_target_that_no_toolkit_makes_for_this_driver_names_the_driver_too(facts) -> None:
    answer = refused(facts, host(gpu("12.0"), driver_version="470.82"))
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == (
        "Install NVIDIA driver 580.65.06 or newer, then build and publish the target cu130-sm120 (sdrun build cu130-sm120)."
    )


@pytest.mark.parametrize(
    ("cc", "ptx"),
    [("13.0", "90"), ("12.5", "90"), ("9.9", "90"), ("8.5", "80")],
)
def test_a_gpu_newer_than_every_toolkit_gets_ptx(facts, cc, ptx) -> None:
    answer = refused(facts, host(gpu(cc)))
    assert answer.change.build == Build("cu124-multi", "linux/amd64", CudaVersion(12, 4), (), (Arch.parse(ptx),))
    strict = refused(facts, host(gpu(cc)), allow_jit=False)
    assert strict.change.allow_jit
    assert strict.remedy.endswith("then leave out --no-jit.")


def test_a_gpu_older_than_every_toolkit_is_left_the_cpu(facts) -> None:
    """koboldcpp#1409: a K80."""
    machine = host(gpu("3.7"), driver_version="470.82")
    answer = refused(facts, machine, image("cu124-sm89", "89"), CPU)
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == "Run on the CPU with --allow-cpu."
    without = refused(facts, machine, image("cu124-sm89", "89"))
    assert without.remedy == "Build and publish the target cpu (sdrun build cpu), then run on the CPU with --allow-cpu."
    chosen = refused(facts, machine, CPU, gpu="0")
    assert chosen.remedy == "Run on the CPU with --allow-cpu."


@pytest.mark.parametrize("driver", ["470.82", "535.54.03", "580.65.06", "580.159.04"])
@pytest.mark.parametrize("cc", ["5.2", "6.1", "7.0"])
@pytest.mark.parametrize(
    "row", [image("cu131-x", "", "50"), image("cu140-x", "50 60 70"), image("cu134-x", "", "50", zstd=True)]
)
def test_a_gpu_that_ends_with_580_is_told_to_build_and_not_to_go_beyond(facts, cc, driver, row) -> None:
    answer = refused(facts, host(gpu(cc), driver_version=driver), row)
    assert answer.change.build is not None
    assert answer.change.driver is None
    assert "590" not in answer.message + answer.remedy + answer.rejected[0].detail
    assert answer.id in ("ptx-newer-than-driver", "no-code-for-capability")


def test_jit_forbidden_and_the_driver_too_old_is_mended_by_a_target(facts) -> None:
    answer = refused(facts, host(gpu("9.0"), driver_version="535.54.03"), image("cu124-x", "", "90"), allow_jit=False)
    assert (answer.id, answer.exit_code) == ("jit-forbidden", 4)
    assert answer.remedy == "Build and publish the target cu124-sm90 (sdrun build cu124-sm90)."


def test_jit_forbidden_driver_too_old_and_nothing_to_build(facts) -> None:
    machine = host(gpu("13.0"), driver_version="470.82")
    answer = refused(facts, machine, image("cu124-x", "", "90"), allow_jit=False)
    assert answer.id == "jit-forbidden"
    assert answer.change.allow_jit
    assert answer.change.driver is not None or answer.change.build is not None


def test_only_ptx_of_another_arch_than_the_engine_expects(facts) -> None:
    answer = refused(facts, host(gpu("9.0")), image("cu124-x", "86", "75"), image("cu130-sm89", "89"))
    assert (answer.id, answer.exit_code) == ("arch-mismatch", 4)
    assert "cu124-x: would load PTX 75, engine expects 86" in answer.message
    assert answer.remedy == "Build and publish the target cu124-sm90 (sdrun build cu124-sm90)."


def test_no_gpu(facts) -> None:
    answer = refused(facts, host(driver_version=None), image("cu124-sm89", "89"), CPU)
    assert (answer.id, answer.exit_code) == ("no-gpu", 3)
    assert answer.remedy == "Run on the CPU with --allow-cpu."
    assert {(row.target, row.reason) for row in answer.rejected} == {("cu124-sm89", "no-gpu"), ("cpu", "cpu-not-allowed")}
    chosen = refused(facts, host(driver_version=None), CPU, gpu="0", allow_cpu=True)
    assert chosen.id == "no-gpu"
    assert chosen.remedy == "Run with --gpu none."


def test_a_gpu_without_a_driver(facts) -> None:
    answer = refused(facts, host(ADA, driver_version=None), image("cu124-sm89", "89"), image("cu118-sm89", "89"))
    assert (answer.id, answer.exit_code) == ("no-gpu", 3)
    assert answer.message == f"No NVIDIA driver runs on this host, which has {LABEL}."
    assert answer.remedy == "Install NVIDIA driver 450.80.02 or newer."
    empty = refused(facts, host(ADA, driver_version=None))
    assert empty.remedy.startswith("Install NVIDIA driver 525.60.13 or newer, then build and publish the target cu124-sm89")
    many = refused(facts, host(*(gpu("8.9", n) for n in range(5)), driver_version=None), gpu="all")
    assert many.message.endswith("GPU 2 (NVIDIA 8.9, compute capability 8.9), 2 more.")


def test_an_empty_index(facts) -> None:
    answer = refused(facts, host(ADA))
    assert (answer.id, answer.exit_code, answer.rejected) == ("no-code-for-capability", 4, ())


def test_an_index_with_the_cpu_alone_still_says_what_to_build(facts) -> None:
    answer = refused(facts, host(ADA), CPU)
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == "Build and publish the target cu124-sm89 (sdrun build cu124-sm89)."


def test_no_cpu_image_for_one_who_asked_for_the_cpu(facts) -> None:
    answer = refused(facts, host(), image("cu124-sm89", "89"), gpu="none", allow_cpu=True)
    assert answer.id == "no-code-for-capability"
    assert answer.message == "There is no published cpu image for linux/amd64."
    assert answer.remedy.startswith("Build and publish the target cpu")
    answer = refused(facts, host(), image("cpu", platform="linux/arm64"), gpu="none")
    assert answer.id == "platform-mismatch"
    assert answer.message == "The published CPU images are for linux/arm64 only; this host is linux/amd64."
    assert answer.remedy == "Build and publish the target cpu (sdrun build cpu), then allow the CPU with --allow-cpu."


def test_ptx_that_no_driver_of_the_gpu_will_compile_and_a_driver_below_its_floor_as_well(facts) -> None:
    for driver, said in (("570.26", "The published PTX needs a newer driver than the last there is for GPU 0"),
                         ("580.65.06", "the nearest is cu131-x: PTX of CUDA 13.1, driver speaks 13.0.")):  # fmt: skip
        answer = refused(facts, host(gpu("7.0"), driver_version=driver), image("cu131-x", "87", "70"))
        assert (answer.id, answer.exit_code) == ("ptx-newer-than-driver", 5)
        assert said in answer.message
        assert answer.remedy == "Build and publish the target cu124-sm70 (sdrun build cu124-sm70)."


def test_cpu_images_alone_hold_no_code_for_a_gpu_wherever_they_are_for(facts) -> None:
    answer = refused(facts, host(ADA), CPU, image("cpu", platform="linux/arm64"))
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == "Build and publish the target cu124-sm89 (sdrun build cu124-sm89)."
    only_elsewhere = refused(facts, host(ADA), image("cpu", platform="linux/arm64"))
    assert only_elsewhere.id == "no-code-for-capability"


def test_images_of_this_machines_own_store_are_not_called_published(facts) -> None:
    own = replace(index(image("cu124-sm90", "90")), published=False)
    answer = resolve(host(ADA), own, Policy(), facts)
    assert isinstance(answer, Refusal)
    assert answer.message.startswith("No local image holds code for compute capability 8.9")
    assert answer.remedy == "Build the target cu124-sm89 (sdrun build cu124-sm89)."


def test_a_cpu_image_here_and_cuda_images_elsewhere(facts) -> None:
    answer = refused(facts, host(ADA), image("cu124-sm89", "89", platform="linux/arm64"), CPU)
    assert answer.id == "platform-mismatch"
    assert answer.message == "The published CUDA images are for linux/arm64 only; this host is linux/amd64."
    assert answer.change.build == Build("cu124-sm89", "linux/amd64", CudaVersion(12, 4), (Arch(89),))


def test_two_things_missing_are_both_in_the_remedy(facts) -> None:
    answer = refused(facts, host(ADA, driver_version="470.82", runtime=None), image("cu124-sm89", "89"))
    assert answer.id == "driver-too-old"
    assert answer.remedy == (
        "Install NVIDIA driver 525.60.13 or newer, then install and start Docker or Podman with the NVIDIA Container Toolkit."
    )


def test_an_override_gets_the_same_checks(facts) -> None:
    rows = (image("cu130-sm89", "89"), image("cu124-sm89", "89"), image("cu124-sm61", "61"), CPU)
    old = host(ADA, driver_version="535.54.03")
    for name in ("cu130-sm89", "sdcpp-1-cu130-sm89", "registry.example/sdrun@sha256:cu130-sm89-linux/amd64"):
        answer = refused(facts, old, *rows, image=name)
        assert answer.id == "driver-too-old"
        assert [row.target for row in answer.rejected] == ["cu130-sm89"]
    answer = refused(facts, old, *rows, image="cu124-sm61")
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == "Leave out --image."
    answer = refused(facts, old, *rows, image="cpu")
    assert answer.id == "cpu-not-allowed"
    assert answer.remedy == "Run on the CPU with --allow-cpu."
    answer = refused(facts, old, *rows, image="no-such")
    assert answer.message == "No published image is called 'no-such'."
    answer = refused(facts, host(gpu("7.0")), *rows, image="no-such")
    assert answer.remedy == "Build and publish the target cu124-sm70 (sdrun build cu124-sm70), then leave out --image."
    answer = refused(facts, host(gpu("3.7"), driver_version="470.82"), *rows, image="cu124-sm61")
    assert answer.remedy == "Leave out --image, then run on the CPU with --allow-cpu."


def test_a_hidden_gpu_that_has_no_image_either(facts) -> None:
    answer = refused(facts, host(ADA, gpu("7.0", 1)), image("cu124-sm75", "75"), gpu="1", visible=("0",))
    assert answer.id == "gpu-not-found"
    assert answer.change.unset_visible
    assert answer.change.build is not None


def test_all_is_told_the_reason_farthest_from_running_and_no_driver_that_ends_one_gpu(facts) -> None:
    machine = host(gpu("9.0", 0), gpu("7.0", 1), driver_version="570.26")
    answer = refused(facts, machine, image("cu124-x", "86", "75"), gpu="all")
    assert [row.reason for row in answer.rejected] == ["no-code-for-capability"]  # arch-mismatch on the 9.0, nothing on the 7.0
    machine = host(gpu("6.1", 0), gpu("8.9", 1), driver_version="580.65.06")
    answer = refused(facts, machine, image("cu131-x", "", "61"), gpu="all")
    assert answer.id == "ptx-newer-than-driver"
    assert answer.change.driver is None
    assert answer.change.build == Build("cu124-multi", "linux/amd64", CudaVersion(12, 4), (Arch(61), Arch(89)))


def test_a_change_takes_nothing_away(facts) -> None:
    floor = Floor(DriverVersion.parse("550.54.14"), CudaVersion(12, 4))
    machine = host(ADA, driver_version="525.60.13", cuda_driver="13.0")  # a forward-compatible libcuda
    after = applied(Change(driver=floor), Request(machine, index(), Policy(), facts)).host
    assert (str(after.driver_version), str(after.cuda_driver)) == ("550.54.14", "13.0")
    newer = applied(Change(driver=floor), Request(host(ADA, cuda_driver="12.2"), index(), Policy(), facts)).host
    assert (str(newer.driver_version), str(newer.cuda_driver)) == ("580.65.06", "12.4")
