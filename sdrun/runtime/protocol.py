"""What sdrun needs of a container runtime, and nothing more. Docker, Podman and the fake of the tests implement it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from sdrun.core.host import RuntimeFacts

Stream = Literal["stdout", "stderr"]
NetworkKind = Literal["none", "internal", "published", "bridge"]
OutputSink = Callable[[Stream, bytes], None]


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of an absolute host path."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """GPUs to hand over. `access` `cdi`: `devices` are fully qualified CDI names (`nvidia.com/gpu=GPU-...`);
    `gpus-flag`: they are UUIDs for NVIDIA's hook (`docker run --gpus device=UUID`)."""

    access: Literal["cdi", "gpus-flag"]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to run. What is not said here is closed: no network, read-only root, no capabilities, no new
    privileges, removed at its end. `ports` (container port -> host port, 0 for a free one) are published on 127.0.0.1 and need
    `network` `"published"` (a bridge on which nothing it sends out is answered, see network.py), or `"bridge"`, which is open;
    on `"internal"` it answers this host at its own address and has no way out at all. `user` is `uid:gid`; `tmpfs` are
    container paths given an empty memory file system; `scratch` is a folder of this run alone, which goes with the container
    where sdrun itself is killed."""

    image: str
    command: tuple[str, ...]
    user: str
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: GpuRequest | None = None
    network: NetworkKind = "none"
    ports: Mapping[int, int] = field(default_factory=dict)
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    memory_bytes: int | None = None
    scratch: Path | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended. `code` is the process's (128 + n after signal n); `seconds` is the process's own wall time by
    the runtime's clock, start-up of the container excluded; a busy runtime notes the start up to 0.1 s late."""

    code: int
    out_of_memory: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image in the runtime's own store. `id` is the content id (`sha256:...`) that `ContainerSpec.image` may name;
    `digests` are registry digests (`name@sha256:...`) it was pulled by; `size_bytes` is its size unpacked."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    size_bytes: int
    platform: str


class ContainerRuntime(Protocol):
    """One reachable container runtime. Every method raises errors of sdrun.errors only (RuntimeUnavailable when the daemon
    is gone), never those of a client library."""

    @property
    def name(self) -> Literal["docker", "podman"]:
        """Which runtime this is."""
        ...

    def facts(self) -> RuntimeFacts:
        """The runtime as it describes itself: version, CDI devices, NVIDIA's runtime."""
        ...

    def images(self, label: str | None = None) -> Sequence[LocalImage]:
        """Local images, those carrying `label` if one is named."""
        ...

    def image(self, reference: str) -> LocalImage | None:
        """The local image of that tag, digest or id, or None."""
        ...

    def pull(self, reference: str, progress: Callable[[str, int, int], None] | None = None) -> LocalImage:
        """Pulls by tag or digest; `progress(layer, bytes_done, bytes_total)`. Raises VerificationFailed (id
        `download-failed`) when it cannot be had."""
        ...

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """Runs to the end and removes the container. Output reaches `on_output` as it comes, unbuffered. A KeyboardInterrupt
        stops the container within 2 seconds, removes it, and is raised on."""
        ...

    def remove(self, container: str) -> bool:
        """Kills and removes the container of that name or id; False where there is none (any more)."""
        ...

    @property
    def reachable_network(self) -> NetworkKind:
        """The most closed network on which this process can reach a container: `internal` where it shares the daemon's host,
        else `published`."""
        ...

    def addresses(self, container: str, port: int) -> tuple[tuple[str, int], ...]:
        """Where that port of a running container may answer from here, the likeliest first; none where it is not running."""
        ...

    def command_line(self, spec: ContainerSpec) -> list[str]:
        """The `docker run` / `podman run` argv that does the same as `run`, for --dry-run."""
        ...
