"""Rule 8: which devices there are, which are meant, and how they reach the container."""

from __future__ import annotations

import pytest
from resolving.samples import CPU, DOCKER, gpu, host, image, index

from sdrun.core.device import all_devices, visible_devices
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve

MULTI = index(image("cu130-multi", "75 80 86 89 90", "75"), CPU)


def taken(facts, machine, rows=MULTI, **asked) -> tuple[str, ...]:
    answer = resolve(machine, rows, Policy(**asked), facts)
    assert isinstance(answer, Plan), answer
    return answer.devices


def refused(facts, machine, rows=MULTI, **asked) -> Refusal:
    answer = resolve(machine, rows, Policy(**asked), facts)
    assert isinstance(answer, Refusal), answer
    return answer


def test_auto_takes_the_best_code_path_before_memory(facts) -> None:
    machine = host(gpu("8.7", 0, uuid="GPU-big", memory=99999), gpu("8.6", 1, uuid="GPU-exact", memory=8192))
    assert taken(facts, machine) == ("GPU-exact",)  # the 8.7 would get PTX at best
    machine = host(gpu("8.9", 0, uuid="GPU-near", memory=99999), gpu("8.6", 1, uuid="GPU-exact", memory=8192))
    assert taken(facts, machine, index(image("cu130-sm86", "86"))) == ("GPU-exact",)


def test_auto_then_takes_the_most_memory_then_the_lowest_index(facts) -> None:
    machine = host(gpu("8.9", 2, memory=24000), gpu("8.6", 0, memory=16000), gpu("8.9", 1, memory=24000))
    assert taken(facts, machine) == ("GPU-00000001-aaaa",)


def test_auto_counts_slices_as_devices_and_not_their_gpu(facts) -> None:
    machine = host(gpu("9.0", 0, memory=81559, mig=(9856, 20096, 20096)), gpu("9.0", 1, memory=16000))
    assert taken(facts, machine) == ("MIG-0-1",)
    assert [device.number for device in all_devices(machine)] == ["0:0", "0:1", "0:2", "1"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("1", "GPU-bbbb-2"),
        (" 1 ", "GPU-bbbb-2"),
        ("GPU-bbbb-2", "GPU-bbbb-2"),
        ("gpu-BBBB-2", "GPU-bbbb-2"),
        ("GPU-bb", "GPU-bbbb-2"),
        ("0", "MIG-0-1"),  # the slice with the most memory
        ("GPU-aaaa-1", "MIG-0-1"),
        ("MIG-0-0", "MIG-0-0"),
        ("0:0", "MIG-0-0"),
        ("0:1", "MIG-0-1"),
        ("GPU-aa", "MIG-0-1"),
    ],
)
def test_one_gpu_by_index_uuid_or_slice(facts, asked, expected) -> None:
    machine = host(gpu("9.0", 0, uuid="GPU-aaaa-1", mig=(9856, 20096)), gpu("8.6", 1, uuid="GPU-bbbb-2"))
    assert taken(facts, machine, gpu=asked) == (expected,)


@pytest.mark.parametrize("asked", ["2", "01", "-1", "1:0", "0:2", "GPU-", "GPU-c", "GPU-x", "", "first", "٣", "MIG-"])
def test_a_gpu_that_is_not_there(facts, asked) -> None:
    machine = host(gpu("9.0", 0, uuid="GPU-x1", mig=(9856,)), gpu("8.6", 1, uuid="GPU-x2"))
    answer = refused(facts, machine, gpu=asked, allow_cpu=True)
    assert (answer.id, answer.exit_code) == ("gpu-not-found", 2)
    assert "GPU 0:0 (NVIDIA 9.0" in answer.message
    assert answer.remedy == "Leave out --gpu."


def test_a_hidden_gpu_is_not_there_and_the_remedy_is_the_one_that_works(facts) -> None:
    machine = host(gpu("9.0", 0), gpu("8.6", 1))
    answer = refused(facts, machine, gpu="1", visible=("0",))
    assert answer.id == "gpu-not-found"
    assert answer.change.unset_visible
    assert answer.remedy == "Unset CUDA_VISIBLE_DEVICES."


def test_all_takes_one_image_for_every_gpu_by_its_worst_path(facts) -> None:
    machine = host(gpu("8.9", 0), gpu("8.6", 1), gpu("9.0", 2, mig=(9856, 20096)))
    answer = resolve(machine, index(image("cu130-a", "86", "86"), image("cu130-b", "86 89 90")), Policy(gpu="all"), facts)
    assert isinstance(answer, Plan)
    assert (answer.target, answer.code_path) == ("cu130-b", "sass-exact")
    assert answer.devices == ("GPU-00000000-aaaa", "GPU-00000001-aaaa", "MIG-2-0", "MIG-2-1")
    answer = resolve(machine, index(image("cu130-a", "86", "86")), Policy(gpu="all"), facts)
    assert isinstance(answer, Plan)
    assert answer.code_path == "ptx-jit"


def test_all_names_the_odd_one_out(facts) -> None:
    machine = host(gpu("8.9", 0), gpu("8.6", 1), gpu("6.1", 2))
    answer = refused(facts, machine, index(image("cu124-sm86", "86"), image("cu124-sm61", "61")), gpu="all")
    assert (answer.id, answer.exit_code) == ("mixed-gpus", 4)
    assert answer.message == (
        "No one image runs on all 3 GPUs: cu124-sm86 runs on 2 of them, not on GPU 2 (NVIDIA 6.1, compute capability 6.1)."
    )
    assert answer.remedy == "Run with --gpu 1."  # the one that `auto` would take


def test_all_with_a_driver_that_would_help_is_a_matter_of_the_driver(facts) -> None:
    machine = host(gpu("8.9", 0), gpu("12.0", 1), driver_version="570.26")
    answer = refused(facts, machine, index(image("cu124-sm89", "89"), image("cu130-multi", "89 120a")), gpu="all")
    assert answer.id == "driver-too-old"
    assert answer.remedy == "Install NVIDIA driver 580.65.06 or newer."


def test_all_whose_gpus_need_an_image_each_and_a_driver_as_well(facts) -> None:
    machine = host(gpu("8.9", 0), gpu("8.6", 1), driver_version="470.82")
    answer = refused(facts, machine, index(image("cu124-sm89", "89"), image("cu124-x", "86", "89")), gpu="all")
    assert answer.id in ("mixed-gpus", "no-code-for-capability", "arch-mismatch")
    assert answer.exit_code == 4


def test_all_that_no_toolkit_spans(facts) -> None:
    machine = host(gpu("6.1", 0), gpu("11.0", 1), platform="linux/arm64")
    answer = refused(facts, machine, index(), gpu="all")
    assert answer.id == "no-code-for-capability"
    assert answer.remedy == "Build and publish the target cu124-sm61 (sdrun build cu124-sm61), then run with --gpu 0."


def test_all_that_no_toolkit_spans_and_an_old_driver(facts) -> None:
    machine = host(gpu("6.1", 0), gpu("11.0", 1), platform="linux/arm64", driver_version="470.82")
    answer = refused(facts, machine, index(image("cu124-sm61", "61", platform="linux/arm64")), gpu="all")
    assert answer.id == "mixed-gpus"
    assert answer.message.startswith("No one image runs on all 2 GPUs: GPU 0 (NVIDIA 6.1")
    assert answer.remedy == "Install NVIDIA driver 525.60.13 or newer, then run with --gpu 0."


def test_none_takes_the_cpu_and_still_asks_for_leave(facts) -> None:
    answer = refused(facts, host(gpu("8.9")), gpu="none")
    assert (answer.id, answer.exit_code) == ("cpu-not-allowed", 4)
    assert {(row.target, row.reason) for row in answer.rejected} == {("cpu", "cpu-not-allowed"), ("cu130-multi", "no-gpu")}
    allowed = resolve(host(gpu("8.9"), runtime=None), MULTI, Policy(gpu="none", allow_cpu=True), facts)
    assert isinstance(allowed, Plan)
    assert (allowed.target, allowed.devices, allowed.gpu_access) == ("cpu", (), "none")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, "0:0 0:1 1 2"),
        ((), ""),
        (("",), ""),
        (("-1",), ""),
        (("NoDevFiles",), ""),
        (("1",), "1"),
        (("2", "1"), "2 1"),
        (("1", "1"), "1"),
        (("1", "9", "2"), "1"),
        (("1", "-1", "2"), "1"),
        (("9999999999999999999999", "1"), ""),
        ((" 1 ", " 2"), "1 2"),
        (("0",), "0:0 0:1"),
        (("MIG-0-1",), "0:1"),
        (("GPU-aaaa", "1"), "0:0 0:1 1"),
        (("GPU-b",), "1"),
        (("GPU-", "1"), ""),
    ],
)
def test_cuda_visible_devices(visible, expected) -> None:
    machine = host(
        gpu("9.0", 0, uuid="GPU-aaaa", mig=(9856, 20096)), gpu("8.6", 1, uuid="GPU-bbbb"), gpu("8.9", 2, uuid="GPU-cccc")
    )
    shown = visible_devices(machine, Policy(visible=visible))
    assert " ".join(device.number for device in shown) == expected


def test_cuda_device_order_says_what_the_numbers_mean() -> None:
    machine = host(gpu("7.5", 0), gpu("8.6", 1, memory=8192), gpu("8.6", 2, memory=24564))
    for order, expected in (("pci-bus-id", 0), ("fastest-first", 2)):
        policy = Policy(visible=("0",), device_order=order)
        assert [device.gpu_index for device in visible_devices(machine, policy)] == [expected]
    assert visible_devices(host(), Policy(visible=("0",), device_order="fastest-first")) == ()


def test_every_gpu_hidden(facts) -> None:
    answer = refused(facts, host(gpu("8.9")), visible=())
    assert (answer.id, answer.exit_code) == ("no-gpu", 3)
    assert answer.message == "CUDA_VISIBLE_DEVICES hides every GPU of this host."
    assert answer.remedy == "Unset CUDA_VISIBLE_DEVICES."


def runtime(*names: str, nvidia: bool = False) -> dict[str, object]:
    return DOCKER | {"cdi_devices": [f"nvidia.com/gpu={name}" for name in names], "nvidia_runtime": nvidia}


A, B = "GPU-aaaa", "GPU-bbbb"


@pytest.mark.parametrize(
    ("found", "wsl", "asked", "access", "requests", "narrow"),
    [
        (runtime("all", A, B), False, "1", "cdi", (f"nvidia.com/gpu={B}",), ()),
        (runtime("all", "0", "1"), False, "1", "cdi", ("nvidia.com/gpu=1",), ()),
        (runtime("gpu0", "gpu1"), False, "0", "cdi", ("nvidia.com/gpu=gpu0",), ()),
        (runtime("0", A, "1", B), False, "all", "cdi", (f"nvidia.com/gpu={A}", f"nvidia.com/gpu={B}"), ()),
        (runtime("all"), False, "all", "cdi", ("nvidia.com/gpu=all",), ()),
        (runtime("all"), False, "0", "cdi", ("nvidia.com/gpu=all",), (A,)),
        (runtime("all", nvidia=True), False, "0", "gpus-flag", (A,), ()),
        (runtime("all", nvidia=True), True, "0", "cdi", ("nvidia.com/gpu=all",), (A,)),
        (runtime(nvidia=True), False, "all", "gpus-flag", (A, B), ()),
        (runtime("all", "0", nvidia=True), False, "1", "gpus-flag", (B,), ()),  # a stale specification
        (runtime("all", "0"), False, "1", "cdi", ("nvidia.com/gpu=all",), (B,)),
        (runtime("all", "0"), False, "all", "cdi", ("nvidia.com/gpu=all",), ()),
        (runtime("0"), False, "1", None, (), ()),
        (runtime(), False, "1", None, (), ()),
        (
            DOCKER | {"cdi_devices": ["vendor.example/gpu=all", "nvidia.com/gds=all"], "nvidia_runtime": False},
            False,
            "0",
            None,
            (),
            (),
        ),
        (None, False, "0", None, (), ()),
    ],
)
def test_gpu_access(facts, found, wsl, asked, access, requests, narrow) -> None:
    machine = host(gpu("8.9", 0, uuid=A), gpu("8.6", 1, uuid=B), runtime=found, wsl=wsl)
    answer = resolve(machine, MULTI, Policy(gpu=asked), facts)
    if access is None:
        assert isinstance(answer, Refusal)
        assert (answer.id, answer.exit_code) == ("gpu-access-unavailable", 6)
        assert answer.change.gpu_access
    else:
        assert isinstance(answer, Plan)
        assert (answer.gpu_access, answer.handover.requests, answer.handover.narrow_to) == (access, requests, narrow)
        assert bool(answer.handover.notes) == (bool(narrow) or found == runtime("all", "0"))
        assert any("nvidia-ctk" in note for note in answer.handover.notes) == (found == runtime("all", "0"))


@pytest.mark.parametrize("name", ["MIG-0-1", "0:1", "mig0:1"])
def test_a_slice_is_handed_over_by_its_own_name(facts, name) -> None:
    machine = host(gpu("9.0", 0, mig=(9856, 20096)), runtime=runtime("all", name))
    answer = resolve(machine, MULTI, Policy(), facts)
    assert isinstance(answer, Plan)
    assert answer.devices == ("MIG-0-1",)
    assert answer.handover.requests == (f"nvidia.com/gpu={name}",)


def test_slices_and_gpus_that_the_specification_does_not_name_are_reached_by_all_of_it(facts) -> None:
    """The specification names what was there when it was written; `all` beside it still leads to what came later."""
    machine = host(gpu("8.9", 0, memory=8192), gpu("9.0", 1, mig=(9856, 20096)), runtime=runtime("all", "0"))
    answer = resolve(machine, MULTI, Policy(gpu="1"), facts)
    assert isinstance(answer, Plan)
    assert (answer.devices, answer.gpu_access) == (("MIG-1-1",), "cdi")
    assert (answer.handover.requests, answer.handover.narrow_to) == (("nvidia.com/gpu=all",), ("MIG-1-1",))
    assert answer.handover.notes[-1].endswith("nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")


def test_auto_prefers_a_gpu_that_can_be_handed_over(facts) -> None:
    machine = host(gpu("8.9", 0, memory=81559), gpu("8.9", 1, memory=8192), runtime=runtime("1"))
    assert taken(facts, machine) == ("GPU-00000001-aaaa",)


@pytest.mark.parametrize("found", [None, runtime()], ids=["no runtime", "no access"])
def test_the_cpu_stands_in_for_a_gpu_out_of_reach_where_it_is_allowed(facts, found) -> None:
    """Else a newer driver, which lets a GPU image run, would turn a cpu plan into a refusal."""
    answer = resolve(host(gpu("8.9"), runtime=found), MULTI, Policy(allow_cpu=True), facts)
    assert isinstance(answer, Plan)
    assert answer.target == "cpu"
    assert [(row.target, row.reason) for row in answer.rejected] == [("cu130-multi", "gpu-access-unavailable")]
    assert ("No container runtime was found that could run it." in answer.handover.notes) == (found is None)
    assert refused(facts, host(gpu("8.9"), runtime=found), index(image("cu130-a", "89")), allow_cpu=True).exit_code == 6


def test_what_a_refusal_says_about_access(facts) -> None:
    said = {
        name: refused(facts, host(gpu("8.9"), runtime=found)).message
        for name, found in (("none", None), ("bare", runtime()), ("stale", runtime("7")))
    }
    assert said["none"].startswith("No container runtime was found")
    assert "knows no CDI device and no NVIDIA runtime" in said["bare"]
    assert "knows CDI devices, but none for GPU 0" in said["stale"]
    stale = refused(facts, host(gpu("8.9"), runtime=runtime("7")))
    assert stale.remedy == "Renew the CDI specification: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml."
