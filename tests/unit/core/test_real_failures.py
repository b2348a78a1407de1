"""Real failures of CUDA builds of stable-diffusion.cpp, llama.cpp and kin, replayed as resolver calls: one test for each thread
whose failure choosing an image can prevent. Each says what was published there, what hardware met it, and what `resolve`
answers instead of the crash.

The others happen before or after the choice, and are held back elsewhere:

| thread | failure | held back by |
|---|---|---|
| stable-diffusion.cpp#399, #488 | source without its submodules | engine sources are pinned whole by hash (tests/unit/build) |
| stable-diffusion.cpp#1792 | Vulkan image without its loader | no Vulkan target exists; the CPU is refused unless allowed |
| llama.cpp#18430, #18413, #18426 | error text inside a compiler flag | targets name archs; `native` is none |
| llama.cpp#23224 | an older nvcc first on PATH | builds run in an image that has one toolkit |
| llama.cpp#13893 | an empty arch list | a target without archs is refused by the catalogue |
| llama.cpp#9848 | kernels compiled with a wrong define | upstream's; the engine is pinned |
| llama.cpp#7822, #7774, #23522 | shared libraries missing in the image | the build proves the closure of libraries |
| llama.cpp#23357 | cuMem* undefined at link | the build links against the driver's stub |
| llama.cpp#24418, #17542, #23111 | cuda-compat in the image | sdrun's images hold no cuda-compat; diagnosis names 803 and 804 |
"""

from __future__ import annotations

import pytest
from resolving.samples import CPU, DOCKER, gpu, host, image, index

from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve

BARE = DOCKER | {"cdi_devices": [], "nvidia_runtime": False}


def refusal(facts, machine, *rows, **asked) -> Refusal:
    answer = resolve(machine, index(*rows), Policy(**asked), facts)
    assert isinstance(answer, Refusal), answer
    return answer


def plan(facts, machine, *rows, **asked) -> Plan:
    answer = resolve(machine, index(*rows), Policy(**asked), facts)
    assert isinstance(answer, Plan), answer
    return answer


def test_sd_547_code_for_5_2_alone_is_compiled_aloud_and_loses_to_a_real_match(facts) -> None:
    """RTX 4070 SUPER, PTX 5.2 only: Q4 aborted. Today's engine believes 5.2 too, so it runs; but never unsaid nor first."""
    only = image("cu124-old", "52", "52")
    answer = plan(facts, host(gpu("8.9")), only)
    assert (answer.code_path, answer.handover.jit_seconds) == ("ptx-jit", 40)
    assert plan(facts, host(gpu("8.9")), only, image("cu124-sm89", "89")).target == "cu124-sm89"
    assert refusal(facts, host(gpu("8.9")), only, allow_jit=False).id == "jit-forbidden"


def test_sd_541_the_default_arch_of_nvcc(facts) -> None:
    answer = plan(facts, host(gpu("8.9")), image("cu124-default", "52", "52"), image("cu124-sm89", "89"))
    assert (answer.target, answer.code_path) == ("cu124-sm89", "sass-exact")


def test_sd_579_flash_attention_on_code_for_6_0(facts) -> None:
    """RTX 3070 Ti (8.6), list 6.0: machine code of another major, no PTX."""
    answer = refusal(facts, host(gpu("8.6")), image("cu124-sm60", "60"))
    assert answer.id == "no-code-for-capability"
    assert "cu124-sm86" in answer.remedy


def test_sd_554_a_list_without_8_6(facts) -> None:
    """RTX A1000 (8.6)."""
    assert refusal(facts, host(gpu("8.6")), image("cu124-x", "75 89 90")).id == "no-code-for-capability"


def test_sd_604_a_list_without_8_6_fails_at_the_first_kernel(facts) -> None:
    """RTX 3050 (8.6): GET_ROWS was the first kernel."""
    assert "cu124-sm86" in refusal(facts, host(gpu("8.6")), image("cu124-x", "70 75 89")).remedy


@pytest.mark.parametrize("cc", ["6.1", "7.5", "8.6", "8.9"])
def test_sd_1060_a_list_cut_by_the_shell_to_9_0(facts, cc) -> None:
    answer = refusal(facts, host(gpu(cc)), image("cu124-windows", "90"))
    assert answer.rejected[0].detail == f"nothing for {cc}: sm_90"


def test_sd_1681_a_build_without_12_0(facts) -> None:
    """RTX 5070 Ti."""
    answer = refusal(facts, host(gpu("12.0")), image("cu128-own", "75 86 89 90"))
    assert answer.id == "no-code-for-capability"
    assert "cu130-sm120" in answer.remedy


def test_sd_349_pascal_on_a_build_for_newer_parts(facts) -> None:
    """P104-100 and GTX 1080 Ti (6.1)."""
    assert "cu124-sm61" in refusal(facts, host(gpu("6.1")), image("cu124-ci", "75 80 86 89", "75")).remedy


def test_sd_1352_a_container_without_the_gpu(facts) -> None:
    """The image ran without --gpus and computed on the CPU in silence."""
    answer = refusal(facts, host(gpu("8.9"), runtime=BARE), image("cu124-sm89", "89"), CPU)
    assert (answer.id, answer.exit_code) == ("gpu-access-unavailable", 6)
    assert plan(facts, host(gpu("8.9")), image("cu124-sm89", "89")).devices == ("GPU-00000000-aaaa",)


def test_sd_1704_an_image_compiled_for_the_builder_alone(facts) -> None:
    """`native` on a machine without a GPU left 5.2 (CUDA 12) or 7.5 (CUDA 13)."""
    assert refusal(facts, host(gpu("9.0")), image("cu130-native", "75")).id == "no-code-for-capability"
    assert plan(facts, host(gpu("7.5")), image("cu130-native", "75")).code_path == "sass-exact"


def test_lc_18421_a_toolkit_that_does_not_know_12_1(facts) -> None:
    """DGX Spark and CUDA 12.8: the target to build is one a toolkit can make."""
    machine = host(gpu("12.1"), platform="linux/arm64")
    answer = refusal(facts, machine, image("cu128-sm120", "120a", platform="linux/arm64"))
    assert "cu130-sm121" in answer.remedy


def test_lc_13271_a_toolkit_that_does_not_know_12_0(facts) -> None:
    answer = refusal(facts, host(gpu("12.0"), driver_version="570.26"), image("cu124-multi", "75 86 89 90"))
    assert "cu129-sm120" in answer.remedy


def test_lc_15589_every_arch_newer_than_the_gpu(facts) -> None:
    """A 7.5 that met a list from 8.0 on: the engine aborts because it finds nothing at or below 7.5."""
    answer = refusal(facts, host(gpu("7.5")), image("cu124-x", "80 86 89", "80"))
    assert answer.id == "no-code-for-capability"


def test_lc_6529_a_wheel_built_without_an_arch_list(facts) -> None:
    """dequantize_block_q8_0_f16 for arch 520; the index says what it holds, and the exact image wins."""
    assert plan(facts, host(gpu("8.6")), image("cu121-wheel", "52", "52"), image("cu121-sm86", "86")).target == "cu121-sm86"


def test_lc_15609_ptx_newer_than_the_driver(facts) -> None:
    """Quadro P2000 (6.1), PTX of a toolkit above the driver: error 222."""
    machine = host(gpu("6.1"), driver_version="535.54.03")
    answer = refusal(facts, machine, image("cu128-x", "", "50 61"))
    assert answer.rejected[0].reason == "ptx-newer-than-driver"
    assert answer.remedy == "Install NVIDIA driver 570.26 or newer."
    assert plan(facts, machine, image("cu128-x", "", "50 61"), image("cu124-sm61", "61")).code_path == "sass-exact"


def test_lc_1648_error_222(facts) -> None:
    answer = refusal(facts, host(gpu("8.6"), driver_version="515.65.01"), image("cu118-x", "", "80"))
    assert (answer.rejected[0].reason, answer.remedy) == ("ptx-newer-than-driver", "Install NVIDIA driver 520.61.05 or newer.")


def test_lc_22561_a_cuda_13_image_below_its_floor(facts) -> None:
    machine = host(gpu("8.6"), driver_version="570.26")
    answer = refusal(facts, machine, image("cu130-server", "86"))
    assert (answer.id, answer.remedy) == ("driver-too-old", "Install NVIDIA driver 580.65.06 or newer.")
    assert plan(facts, machine, image("cu130-server", "86"), image("cu124-server", "86")).target == "cu124-server"


def test_lc_11869_machine_code_of_12_6_runs_on_a_driver_of_12_0(facts) -> None:
    """The base was lowered to 12.4 to reach older drivers; machine code needs only the major's floor."""
    assert plan(facts, host(gpu("8.6"), driver_version="525.60.13"), image("cu126-x", "86")).code_path == "sass-exact"


def test_lc_25909_prebuilt_files_without_6_1(facts) -> None:
    assert "cu124-sm61" in refusal(facts, host(gpu("6.1")), image("cu129-pre", "75 80 86 89 90 120a", "75")).remedy


def test_localai_9156_a_v100_and_a_list_without_7_0(facts) -> None:
    assert "cu124-sm70" in refusal(facts, host(gpu("7.0")), image("cu128-x", "75 80 86 89 90", "75")).remedy


def test_localai_7504_no_arm64_image_for_dgx_spark(facts) -> None:
    answer = refusal(facts, host(gpu("12.1"), platform="linux/arm64"), image("cu130-sm121", "121a"))
    assert answer.id == "platform-mismatch"
    assert answer.change.build is not None
    assert (answer.change.build.target, answer.change.build.platform) == ("cu130-sm121", "linux/arm64")


def test_localai_5189_rtx_50_and_a_toolkit_before_12_8(facts) -> None:
    assert refusal(facts, host(gpu("12.0")), image("cu124-x", "75 80 86 89 90")).id == "no-code-for-capability"


@pytest.mark.parametrize("cc", ["6.1", "7.0"])
def test_ollama_12341_pascal_dropped_by_the_move_to_cuda_13(facts, cc) -> None:
    """Quadro P2000, GTX 1080: the CUDA 12 line is kept beside, and no newer driver is recommended."""
    thirteen = image("cu130-multi", "75 80 86 89 90", "75")
    answer = refusal(facts, host(gpu(cc)), thirteen)
    assert answer.change.driver is None
    assert f"cu124-sm{cc.replace('.', '')}" in answer.remedy
    twelve = image("cu129-multi", "50 60 61 70", "50")
    assert plan(facts, host(gpu(cc)), thirteen, twelve).target == "cu129-multi"


def test_ollama_16449_zstd_fatbins_on_r535(facts) -> None:
    """V100 and driver 535: "device kernel image is invalid"."""
    machine = host(gpu("7.0"), driver_version="535.54.03")
    answer = refusal(facts, machine, image("cu128-sm70", "70", zstd=True))
    assert answer.rejected[0].reason == "fatbin-compression-newer-than-driver"
    assert (answer.id, answer.remedy) == ("driver-too-old", "Install NVIDIA driver 550.54.14 or newer.")
    assert plan(facts, machine, image("cu128-sm70", "70", zstd=True), image("cu128-lz4", "70")).target == "cu128-lz4"


def test_ollama_7666_driver_515(facts) -> None:
    answer = refusal(facts, host(gpu("8.6"), driver_version="515.65.01"), image("cu124-sm86", "86"))
    assert (answer.id, answer.remedy) == ("driver-too-old", "Install NVIDIA driver 525.60.13 or newer.")


def test_koboldcpp_1362_gp100_and_a_list_without_6_0(facts) -> None:
    """List 5.2 and 6.1: on 6.0 the code for 5.2 is compiled while the list holds nothing between."""
    assert refusal(facts, host(gpu("6.0")), image("cu118-x", "61")).id == "no-code-for-capability"
    assert plan(facts, host(gpu("6.0")), image("cu118-x", "61", "52"), image("cu118-sm60", "60")).target == "cu118-sm60"


def test_koboldcpp_610_code_for_whole_majors(facts) -> None:
    """6.0 runs on 6.1 but without its dot products: said as compatible, and the exact one is preferred."""
    major = image("cu124-majors", "50 60 70 80 90")
    assert plan(facts, host(gpu("6.1")), major).code_path == "sass-compatible"
    assert plan(facts, host(gpu("6.1")), major, image("cu118-sm61", "61")).target == "cu118-sm61"


def test_koboldcpp_1409_a_k80(facts) -> None:
    machine = host(gpu("3.7"), driver_version="470.82")
    answer = refusal(facts, machine, image("cu124-multi", "50 61 75", "50"), CPU)
    assert (answer.id, answer.remedy) == ("no-code-for-capability", "Run on the CPU with --allow-cpu.")


def test_model_runner_929_pascal_and_a_single_cuda_13_image(facts) -> None:
    answer = refusal(facts, host(gpu("6.1"), driver_version="580.65.06"), image("cu130-only", "75 80 86 89 90", "75"))
    assert answer.id == "no-code-for-capability"


def test_inference_snaps_255_r535_and_ptx(facts) -> None:
    machine = host(gpu("9.0"), driver_version="535.54.03")
    answer = refusal(facts, machine, image("cu129-x", "86", "90", zstd=True))
    assert answer.rejected[0].reason == "ptx-newer-than-driver"
    assert plan(facts, machine, image("cu129-x", "86", "90", zstd=True), image("cu124-sm90", "90")).target == "cu124-sm90"


def test_whisper_2050_ptx_5_2_gave_wrong_numbers(facts) -> None:
    answer = plan(facts, host(gpu("8.9")), image("cu124-x", "", "52"), image("cu118-y", "80"))
    assert answer.target == "cu118-y"


def test_llama_cpp_builder_31_jetson_orin(facts) -> None:
    """Desktop code for arm64 servers does not run on an Orin before JetPack 7.2; its own target is named."""
    machine = host(gpu("8.7"), platform="linux/arm64", tegra="36.4", driver_version="540.4.0", cuda_driver="12.6")
    answer = refusal(facts, machine, image("cu124-sm86", "80 86", platform="linux/arm64"))
    assert "cu124-sm87" in answer.remedy
    newer = host(gpu("8.7"), platform="linux/arm64", tegra="39.0", driver_version="595.45.04", cuda_driver="13.2")
    assert plan(facts, newer, image("cu124-sm86", "80 86", platform="linux/arm64")).code_path == "sass-compatible"


def test_gpu_h100_86_and_ptx_75_the_measured_abort(facts) -> None:
    """Not a thread but a measurement: SASS 8.6 and PTX 7.5 on an H100 abort under flash attention."""
    assert refusal(facts, host(gpu("9.0")), image("cu130-x", "86", "75")).id == "arch-mismatch"
    assert plan(facts, host(gpu("8.9")), image("cu130-x", "86", "75")).code_path == "sass-compatible"
