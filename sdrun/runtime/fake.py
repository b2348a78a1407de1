"""A container runtime without containers: plays a script of output and an exit, and records what it was asked to run.

It keeps the Protocol's promises that can be kept without a daemon: an unknown image is refused, output comes in pieces and in
order, whatever `on_output` raises leaves with the container gone, and no container outlives its run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sdrun.core.host import RuntimeFacts
from sdrun.errors import RuntimeUnavailable, SdrunError, VerificationFailed
from sdrun.runtime.hardening import DaemonTraits, command_line
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage, NetworkKind, OutputSink, Stream


@dataclass(frozen=True, slots=True)
class Script:
    """What an engine does: prints `output`, then writes `files` (container path -> content) through the spec's writable mounts,
    then ends with `exit`; or the start fails with `start_error`."""

    output: tuple[tuple[Stream, bytes], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    exit: Exit = field(default_factory=lambda: Exit(0, False, 1.0))
    start_error: SdrunError | None = None


@dataclass(slots=True)
class FakeRuntime:
    """`script` may be a function of the spec, for an engine whose doing depends on its arguments."""

    script: Script | Callable[[ContainerSpec], Script] = field(default_factory=Script)
    local: list[LocalImage] = field(default_factory=list)
    remote: Mapping[str, LocalImage] = field(default_factory=dict)
    reported: RuntimeFacts = field(default_factory=lambda: RuntimeFacts("docker", "28.5.2"))
    specs: list[ContainerSpec] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    name: Literal["docker", "podman"] = "docker"

    def facts(self) -> RuntimeFacts:
        """The facts it was given."""
        return self.reported

    def images(self, label: str | None = None) -> Sequence[LocalImage]:
        """The local images with that label."""
        return [image for image in self.local if label is None or label in image.labels]

    def image(self, reference: str) -> LocalImage | None:
        """By id, tag or digest."""
        return next((i for i in self.local if reference == i.id or reference in (*i.tags, *i.digests)), None)

    def pull(self, reference: str, progress: Callable[[str, int, int], None] | None = None) -> LocalImage:
        """Moves an image from `remote` to `local`."""
        if reference not in self.remote:
            raise VerificationFailed(f"{reference} cannot be pulled", "Check the name.", id="download-failed")
        image = self.remote[reference]
        if progress is not None:
            progress("layer", image.size_bytes, image.size_bytes)
        self.local.append(image)
        return image

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """Plays the script."""
        if self.image(spec.image) is None:
            raise RuntimeUnavailable(f"the image {spec.image} is not here", "Build it or pull it.", id="image-missing")
        self.specs.append(spec)
        script = self.script if isinstance(self.script, Script) else self.script(spec)
        if script.start_error is not None:
            raise script.start_error
        self.containers.append(spec.name or "container")
        try:
            for stream, data in script.output:
                on_output(stream, data)
            for path, content in script.files.items():
                _outside(spec, path).write_bytes(content)
            return script.exit
        finally:
            self.containers.pop()

    def remove(self, container: str) -> bool:
        """Whether it was running; the run itself is over when its script is."""
        return container in self.containers

    @property
    def reachable_network(self) -> NetworkKind:
        """As a Docker on this host."""
        return "internal"

    def addresses(self, container: str, port: int) -> tuple[tuple[str, int], ...]:
        """Nobody listens in a script."""
        return ()

    def command_line(self, spec: ContainerSpec) -> list[str]:
        """As a Docker without peculiarities."""
        return command_line(spec, DaemonTraits(), self.name)


def _outside(spec: ContainerSpec, path: str) -> Path:
    """The host path behind a container path; raises PermissionError where the container could not write."""
    for mount in spec.mounts:
        if not mount.read_only and path.startswith(mount.target + "/"):
            return mount.source / path[len(mount.target) + 1 :]
    raise PermissionError(30, "Read-only file system", path)
