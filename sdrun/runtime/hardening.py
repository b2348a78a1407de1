"""What every container is denied, written once and said three ways: to Docker's API, to Podman's API and as a command line.

Source of the list: section 7 of the command line's contract. An init process stands before the engine because the kernel
ignores a fatal signal that PID 1 sends itself: an engine that calls abort() as PID 1 ends with 139 (a crash) where it should
say 134 (measured with Docker 20.10: 139 without --init, 134 with it).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from sdrun.runtime.network import NETWORKS
from sdrun.runtime.protocol import ContainerSpec, Mount

RUN_LABEL = "io.sdrun.run"
# The engine splits a prompt with std::regex, whose recursion grows with the text: with the usual 8 MiB a prompt of 32 kB ends
# in a crash; with 64 MiB every argument that Linux can pass (128 KiB) is read (measured: 32 MiB are too few).
# Docker only: of Podman one limit asked for takes away the default limits of its settings (seen with 4.3.1), and then the
# container may not start where the caller has less than those.
STACK_BYTES = 64 * 1024 * 1024
PIDS_LIMIT = 4096  # far above what CUDA and OpenMP start on a 256-thread host, far below a fork bomb
TMPFS_OPTIONS = ("rw", "noexec", "nosuid", "nodev", "size=67108864", "mode=1777")
SECURITY_OPTIONS = ("no-new-privileges",)


@dataclass(frozen=True, slots=True)
class DaemonTraits:
    """How a daemon maps users and labels files, as far as it changes the flags. `rootless`: the container's root is the caller;
    `remaps_users`: container ids are shifted (userns-remap); `selinux`: the daemon confines containers with SELinux."""

    rootless: bool = False
    remaps_users: bool = False
    selinux: bool = False


def traits_from_security_options(options: list[str] | None) -> DaemonTraits:
    """From the `SecurityOptions` of the daemon's info.

    >>> traits_from_security_options(["name=seccomp,profile=builtin", "name=rootless"]).rootless
    True
    """
    names = {item.removeprefix("name=").split(",", 1)[0] for item in options or []}
    return DaemonTraits("rootless" in names, "userns" in names, "selinux" in names)


def user(spec: ContainerSpec, traits: DaemonTraits, runtime: str) -> str:
    """The user in the container who is the caller outside. A rootless Docker daemon runs as the caller and maps the
    container's root to it; rootless Podman keeps the id with `keep-id`."""
    return "0:0" if traits.rootless and runtime == "docker" else spec.user


def user_namespace(traits: DaemonTraits, runtime: str) -> str | None:
    """The namespace in which `user` means the caller: the host's where a daemon shifts ids, `keep-id` for rootless Podman."""
    if runtime == "podman":
        return "keep-id" if traits.rootless else None
    return "host" if traits.remaps_users else None


def network(spec: ContainerSpec, runtime: str) -> str:
    """The name by which the runtime knows the network; Podman has none of sdrun's own."""
    if runtime == "podman":
        return "none" if spec.network == "none" else "bridge"
    return NETWORKS[spec.network].name if spec.network in NETWORKS else spec.network


def security_options(traits: DaemonTraits) -> list[str]:
    """Nothing may gain privileges. Under SELinux the label is off: confined containers may not read the user's own files, and
    relabelling a model store would change files that are not sdrun's."""
    return [*SECURITY_OPTIONS, *(["label=disable"] if traits.selinux else [])]


def docker_spec(spec: ContainerSpec, name: str, traits: DaemonTraits) -> dict[str, Any]:
    """The body of Docker's container create."""
    body: dict[str, Any] = {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "User": user(spec, traits, "docker"),
        "Env": [f"{key}={value}" for key, value in spec.environment.items()],
        "Labels": {**spec.labels, RUN_LABEL: name},
        "ExposedPorts": {f"{inside}/tcp": {} for inside in spec.ports},
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _docker_host_config(spec, traits),
    }
    if spec.entrypoint is not None:
        body["Entrypoint"] = list(spec.entrypoint)
    return body


def _docker_host_config(spec: ContainerSpec, traits: DaemonTraits) -> dict[str, Any]:
    config: dict[str, Any] = {
        "AutoRemove": True,
        "Init": True,
        "NetworkMode": network(spec, "docker"),
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": security_options(traits),
        "PidsLimit": PIDS_LIMIT,
        "Ulimits": [{"Name": "stack", "Soft": STACK_BYTES, "Hard": STACK_BYTES}],
        "Mounts": [{"Type": "bind", "Source": str(m.source), "Target": m.target, "ReadOnly": m.read_only} for m in spec.mounts],
        "Tmpfs": {path: ",".join(TMPFS_OPTIONS) for path in spec.tmpfs},
        "PortBindings": {
            f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(outside or "")}] for inside, outside in spec.ports.items()
        },
    }
    if spec.gpu is not None:  # count, capabilities and options must stay empty for CDI
        driver, capabilities = ("cdi", []) if spec.gpu.access == "cdi" else ("", [["gpu"]])
        request = {"Driver": driver, "Count": 0, "DeviceIDs": list(spec.gpu.devices)}
        config["DeviceRequests"] = [{**request, "Capabilities": capabilities, "Options": {}}]
    if spec.memory_bytes is not None:
        config |= {"Memory": spec.memory_bytes, "MemorySwap": spec.memory_bytes}  # equal: no swap beside the limit
    if (namespace := user_namespace(traits, "docker")) is not None:
        config["UsernsMode"] = namespace
    return config


def podman_spec(spec: ContainerSpec, name: str, traits: DaemonTraits) -> dict[str, Any]:
    """The body of libpod's container create.

    Not Docker's create on Podman's socket: that one drops a CDI request without a word (seen with Podman 4.3.1; later
    releases honour it), and its `Devices` want a path that exists."""
    limits: dict[str, Any] = {"pids": {"limit": PIDS_LIMIT}}
    if spec.memory_bytes is not None:
        limits["memory"] = {"limit": spec.memory_bytes, "swap": spec.memory_bytes}
    mounts: list[dict[str, Any]] = [
        {
            "type": "bind",
            "source": str(m.source),
            "destination": m.target,
            "options": ["rbind", "ro" if m.read_only else "rw"],
        }
        for m in spec.mounts
    ]
    mounts += [{"type": "tmpfs", "destination": path, "options": list(TMPFS_OPTIONS)} for path in spec.tmpfs]
    body: dict[str, Any] = {
        "name": name,
        "image": spec.image,
        "command": list(spec.command),
        "user": user(spec, traits, "podman"),
        "env": dict(spec.environment),
        "labels": {**spec.labels, RUN_LABEL: name},
        "mounts": mounts,
        "netns": {"nsmode": network(spec, "podman")},
        "portmappings": [
            {"container_port": inside, "host_port": outside, "host_ip": "127.0.0.1", "protocol": "tcp"}
            for inside, outside in spec.ports.items()
        ],
        "read_only_filesystem": True,
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        "resource_limits": limits,
        "init": True,
        "remove": True,
    }
    if traits.selinux:
        body["selinux_opts"] = ["disable"]
    if (namespace := user_namespace(traits, "podman")) is not None:
        body["userns"] = {"nsmode": namespace}
    if spec.entrypoint is not None:
        body["entrypoint"] = list(spec.entrypoint)
    if spec.gpu is not None:
        body["devices"] = [{"path": device} for device in spec.gpu.devices]
    return body


def command_line(spec: ContainerSpec, traits: DaemonTraits, runtime: str) -> list[str]:
    """The `docker run` or `podman run` that asks for the same container."""
    argv = [runtime, "run", "--rm", "--init", "--network", network(spec, runtime), "--read-only", "--cap-drop", "ALL"]
    for option in security_options(traits):
        argv += ["--security-opt", option]
    argv += ["--pids-limit", str(PIDS_LIMIT), "--user", user(spec, traits, runtime)]
    if runtime == "docker":
        argv += ["--ulimit", f"stack={STACK_BYTES}"]
    if (namespace := user_namespace(traits, runtime)) is not None:
        argv += ["--userns", namespace]
    if spec.memory_bytes is not None:
        argv += ["--memory", str(spec.memory_bytes), "--memory-swap", str(spec.memory_bytes)]
    if spec.name is not None:
        argv += ["--name", spec.name]
    for key, value in spec.labels.items():
        argv += ["--label", f"{key}={value}"]
    for key, value in spec.environment.items():
        argv += ["--env", f"{key}={value}"]
    for path in spec.tmpfs:
        argv += ["--tmpfs", f"{path}:{','.join(TMPFS_OPTIONS)}"]
    for mount in spec.mounts:
        argv += ["--mount", _mount_option(mount)]
    for inside, outside in spec.ports.items():
        argv += ["--publish", f"127.0.0.1:{outside or ''}:{inside}"]
    argv += _gpu_options(spec, runtime)
    command = list(spec.command)
    if spec.entrypoint is not None:  # the command line takes one word there; the rest stands before the arguments
        argv += ["--entrypoint", spec.entrypoint[0] if spec.entrypoint else ""]
        command = [*spec.entrypoint[1:], *command]
    return [*argv, spec.image, *command]


def _gpu_options(spec: ContainerSpec, runtime: str) -> list[str]:
    if spec.gpu is None:
        return []
    if spec.gpu.access == "cdi" or runtime == "podman":
        return [word for device in spec.gpu.devices for word in ("--device", device)]
    listed = ",".join(spec.gpu.devices)
    return ["--gpus", f'"device={listed}"' if "," in listed else f"device={listed}"]


def _mount_option(mount: Mount) -> str:
    """Docker reads --mount as one line of CSV, so a path with a comma or a quote is quoted the way CSV does it."""
    line = io.StringIO()
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}", *(["readonly"] if mount.read_only else [])]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
