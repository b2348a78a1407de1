"""What every container is denied, in each of the three ways it is said."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sdrun.runtime.hardening import (
    DaemonTraits,
    command_line,
    docker_spec,
    podman_spec,
    traits_from_security_options,
    user,
    user_namespace,
)
from sdrun.runtime.protocol import ContainerSpec, GpuRequest, Mount

SPEC = ContainerSpec(
    image="sha256:abc",
    command=("--prompt", "a 'fox'\n-n"),
    user="1000:1001",
    mounts=(Mount(Path("/models/a,b.gguf"), "/models/a.gguf"), Mount(Path("/out"), "/out", read_only=False)),
    environment={"HOME": "/tmp"},
    tmpfs=("/tmp",),
    labels={"io.sdrun.target": "cpu"},
)
CDI = GpuRequest("cdi", ("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"))
HOOK = GpuRequest("gpus-flag", ("GPU-1", "GPU-2"))


def with_gpu(gpu: GpuRequest) -> ContainerSpec:
    return ContainerSpec("i", (), "1:1", gpu=gpu)


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    config: dict[str, Any] = docker_spec(spec, "run-1", DaemonTraits())["HostConfig"]
    return config


def test_docker_is_told_everything() -> None:
    config = host_config(SPEC)
    assert config["NetworkMode"] == "none"
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["AutoRemove"] is True
    assert config["Init"] is True
    assert 0 < config["PidsLimit"] <= 4096
    assert [(limit["Name"], limit["Soft"]) for limit in config["Ulimits"]] == [("stack", 64 * 2**20)]
    assert [(m["Source"], m["ReadOnly"]) for m in config["Mounts"]] == [("/models/a,b.gguf", True), ("/out", False)]
    options = config["Tmpfs"]["/tmp"].split(",")
    assert {"noexec", "nosuid", "nodev"} <= set(options)
    assert any(option.startswith("size=") for option in options)


def test_what_docker_is_to_run() -> None:
    body = docker_spec(SPEC, "run-1", DaemonTraits())
    assert (body["Image"], body["Cmd"], body["User"]) == ("sha256:abc", ["--prompt", "a 'fox'\n-n"], "1000:1001")
    assert body["Env"] == ["HOME=/tmp"]
    assert body["Labels"] == {"io.sdrun.target": "cpu", "io.sdrun.run": "run-1"}
    assert "Entrypoint" not in body  # the image's own
    named = docker_spec(replace(SPEC, entrypoint=("/guard", "--")), "run-1", DaemonTraits(remaps_users=True))
    assert (named["Entrypoint"], named["HostConfig"]["UsernsMode"]) == (["/guard", "--"], "host")


def test_podman_is_told_the_same() -> None:
    body = podman_spec(SPEC, "run-1", DaemonTraits())
    assert body["netns"] == {"nsmode": "none"}
    assert body["read_only_filesystem"] is True
    assert body["cap_drop"] == ["ALL"]
    assert body["no_new_privileges"] is True
    assert body["remove"] is True
    assert body["init"] is True
    assert body["user"] == "1000:1001"
    assert body["labels"] == {"io.sdrun.target": "cpu", "io.sdrun.run": "run-1"}
    assert [(m["source"], m["options"]) for m in body["mounts"] if m["type"] == "bind"] == [
        ("/models/a,b.gguf", ["rbind", "ro"]),
        ("/out", ["rbind", "rw"]),
    ]


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_the_command_line_says_the_same(runtime: str) -> None:
    argv = command_line(SPEC, DaemonTraits(), runtime)
    assert argv[:2] == [runtime, "run"]
    assert {"--rm", "--init", "--read-only"} <= set(argv)
    pairs = set(pairwise(argv))
    assert {("--network", "none"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges")} <= pairs
    assert ("--user", "1000:1001") in pairs
    assert argv[-3:] == ["sha256:abc", "--prompt", "a 'fox'\n-n"]
    mounts = [next(csv.reader([argv[i + 1]])) for i, word in enumerate(argv) if word == "--mount"]
    assert mounts[0] == ["type=bind", "source=/models/a,b.gguf", "target=/models/a.gguf", "readonly"]
    assert mounts[1] == ["type=bind", "source=/out", "target=/out"]


def test_cdi_requests_carry_nothing_but_names() -> None:
    (request,) = host_config(with_gpu(CDI))["DeviceRequests"]
    assert request["Driver"] == "cdi"
    assert request["DeviceIDs"] == list(CDI.devices)
    assert (request["Count"], request["Capabilities"], request["Options"]) == (0, [], {})
    assert podman_spec(with_gpu(CDI), "n", DaemonTraits())["devices"] == [{"path": device} for device in CDI.devices]
    argv = command_line(with_gpu(CDI), DaemonTraits(), "docker")
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--device"] == list(CDI.devices)


def test_the_hook_gets_uuids() -> None:
    (request,) = host_config(with_gpu(HOOK))["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-1", "GPU-2"]
    assert request["Capabilities"] == [["gpu"]]
    argv = command_line(with_gpu(HOOK), DaemonTraits(), "docker")
    assert argv[argv.index("--gpus") + 1] == '"device=GPU-1,GPU-2"'  # the CSV quoting docker asks for
    one = command_line(with_gpu(GpuRequest("gpus-flag", ("GPU-1",))), DaemonTraits(), "docker")
    assert one[one.index("--gpus") + 1] == "device=GPU-1"


def test_ports_stay_on_loopback() -> None:
    spec = ContainerSpec("i", (), "1:1", network="bridge", ports={1234: 8080})
    assert host_config(spec)["PortBindings"] == {"1234/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert docker_spec(spec, "n", DaemonTraits())["ExposedPorts"] == {"1234/tcp": {}}
    argv = command_line(spec, DaemonTraits(), "docker")
    assert argv[argv.index("--publish") + 1] == "127.0.0.1:8080:1234"


def test_memory_limit_leaves_no_swap() -> None:
    spec = ContainerSpec("i", (), "1:1", memory_bytes=1 << 20)
    config = host_config(spec)
    assert config["Memory"] == config["MemorySwap"] == 1 << 20
    assert podman_spec(spec, "n", DaemonTraits())["resource_limits"]["memory"] == {"limit": 1 << 20, "swap": 1 << 20}


@pytest.mark.parametrize(
    ("runtime", "traits", "expected_user", "namespace"),
    [
        ("docker", DaemonTraits(), "1000:1001", None),
        ("docker", DaemonTraits(rootless=True), "0:0", None),
        ("docker", DaemonTraits(remaps_users=True), "1000:1001", "host"),
        ("podman", DaemonTraits(), "1000:1001", None),
        ("podman", DaemonTraits(rootless=True), "1000:1001", "keep-id"),
    ],
)
def test_the_caller_owns_the_output(runtime: str, traits: DaemonTraits, expected_user: str, namespace: str | None) -> None:
    assert user(SPEC, traits, runtime) == expected_user
    assert user_namespace(traits, runtime) == namespace


def test_entrypoint_on_the_command_line() -> None:
    argv = command_line(ContainerSpec("i", ("x",), "1:1", entrypoint=("/guard", "--", "/sd-cli")), DaemonTraits(), "docker")
    assert argv[-6:] == ["--entrypoint", "/guard", "i", "--", "/sd-cli", "x"]


def test_traits() -> None:
    options = ["name=seccomp,profile=builtin", "name=rootless", "name=selinux", "name=userns"]
    assert traits_from_security_options(options) == DaemonTraits(True, True, True)
    assert traits_from_security_options(None) == DaemonTraits()
