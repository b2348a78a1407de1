"""The part that Docker and Podman share: Docker's API, which both answer to."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, ClassVar

from sdrun.core.host import RuntimeFacts
from sdrun.core.labels import PLATFORM
from sdrun.errors import VerificationFailed
from sdrun.runtime import hardening, running
from sdrun.runtime.api import Api, Refused, Stream
from sdrun.runtime.caretaker import cared_for
from sdrun.runtime.endpoints import Endpoint, RuntimeName
from sdrun.runtime.faults import reading, translated, translated_library
from sdrun.runtime.network import addresses
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage, NetworkKind, OutputSink


class ApiRuntime(ABC):
    """A runtime that speaks Docker's API. Subclasses hold what differs: facts, creation, how a memory kill is learned of."""

    runtime_name: ClassVar[RuntimeName]

    def __init__(self, api: Api, endpoint: Endpoint, version: str) -> None:
        self._api = api
        self._endpoint = endpoint
        self._version = version

    @property
    def name(self) -> RuntimeName:
        """`docker` or `podman`."""
        return self.runtime_name

    @property
    def endpoint(self) -> Endpoint:
        """Where it was reached."""
        return self._endpoint

    def close(self) -> None:
        """Gives back its connections; a process that ends need not."""
        self._held.close()

    @cached_property
    def _held(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _library(self) -> Any:
        """docker-py, for what hands a registry's credentials over."""
        from sdrun.runtime.library import client

        return self._held.enter_context(client(self._endpoint, self._api.api_version, self._api.timeout))

    @cached_property
    def _info(self) -> dict[str, Any]:
        with translated(self._endpoint):
            answer: dict[str, Any] = self._api.info()
            return answer

    @cached_property
    def _traits(self) -> hardening.DaemonTraits:
        return hardening.traits_from_security_options(self._info.get("SecurityOptions"))

    @abstractmethod
    def facts(self) -> RuntimeFacts:
        """See ContainerRuntime."""

    def images(self, label: str | None = None) -> Sequence[LocalImage]:
        """See ContainerRuntime."""
        with translated(self._endpoint):
            rows = self._api.images({"label": [label]} if label else {})
        with reading(self._endpoint):
            return [self._image(row, row.get("Labels"), None) for row in rows]

    def image(self, reference: str) -> LocalImage | None:
        """See ContainerRuntime."""
        with translated(self._endpoint):
            try:
                row = self._api.inspect_image(reference)
            except Refused as fault:
                if fault.status in (404, 301):  # 301: the name is no clean path (`a//b`, `../x`), and no image has such a one
                    return None
                raise
        with reading(self._endpoint):
            return self._image(row, (row.get("Config") or {}).get("Labels"), f"{row['Os']}/{row['Architecture']}")

    def _image(self, row: dict[str, Any], labels: dict[str, str] | None, platform: str | None) -> LocalImage:
        known = platform or (labels or {}).get(PLATFORM)
        if known is None:
            with translated(self._endpoint):
                details = self._api.inspect_image(row["Id"])
            known = f"{details['Os']}/{details['Architecture']}"
        image_id = str(row["Id"])
        return LocalImage(
            id=image_id if image_id.startswith("sha256:") else f"sha256:{image_id}",
            tags=tuple(tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>"),
            digests=tuple(digest for digest in row.get("RepoDigests") or () if digest != "<none>@<none>"),
            labels=dict(labels or {}),
            size_bytes=int(row["Size"]),
            platform=known,
        )

    def pull(self, reference: str, progress: Callable[[str, int, int], None] | None = None) -> LocalImage:
        """See ContainerRuntime."""
        remedy = f"Check the name and the network, and log in if the registry asks for it: {self.name} login"
        for event in self._pulling(reference, remedy):
            if "error" in event:
                raise _not_pulled(reference, remedy, str(event["error"]))
            detail = event.get("progressDetail") or {}
            if progress is not None and detail.get("total"):
                progress(str(event.get("id", "")), int(detail.get("current", 0)), int(detail["total"]))
        image = self.image(reference)
        if image is None:
            raise VerificationFailed(f"{reference} was pulled and is not there", remedy, id="download-failed")
        return image

    def _pulling(self, reference: str, remedy: str) -> Iterator[dict[str, Any]]:
        import docker.errors

        with translated_library(self._endpoint):
            try:
                yield from self._library.pull(*_split(reference), stream=True, decode=True)
            except docker.errors.APIError as fault:
                raise _not_pulled(reference, remedy, str(fault.explanation)) from None

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """See ContainerRuntime."""
        calls = RunCalls(self, spec)
        with cared_for(self._endpoint.runtime, calls.name, spec.scratch):
            return running.run(calls, on_output)

    def remove(self, container: str) -> bool:
        """Kills and removes the container of that name or id; False where there is none (any more)."""
        with translated(self._endpoint):
            try:
                self._api.remove_container(container)
            except Refused as fault:
                if fault.status not in (404, 409):  # gone, or being removed
                    raise
                return fault.status == 409
        return True

    @property
    @abstractmethod
    def reachable_network(self) -> NetworkKind:
        """See ContainerRuntime."""

    def addresses(self, container: str, port: int) -> tuple[tuple[str, int], ...]:
        """See ContainerRuntime."""
        with translated(self._endpoint):
            try:
                details = self._api.inspect_container(container)
            except Refused as fault:
                if fault.status == 404:
                    return ()
                raise
        with reading(self._endpoint):
            return addresses(details, port)

    def command_line(self, spec: ContainerSpec) -> list[str]:
        """See ContainerRuntime."""
        return hardening.command_line(spec, self._traits, self.name)

    @abstractmethod
    def create(self, spec: ContainerSpec, name: str) -> str:
        """Makes the container; its id."""

    @abstractmethod
    def was_out_of_memory(self, container: str) -> bool:
        """True if the runtime says, outside its events, that the container was killed for memory."""


class RunCalls:
    """The calls of one run (see running.Calls)."""

    def __init__(self, runtime: ApiRuntime, spec: ContainerSpec) -> None:
        self._runtime = runtime
        self._api = runtime._api
        self._endpoint = runtime.endpoint
        self._spec = spec
        self.name = spec.name or f"sdrun-{os.urandom(6).hex()}"
        self._open: list[Stream] = []

    def create(self) -> str:
        with translated(self._endpoint):
            return self._runtime.create(self._spec, self.name)

    def attach(self, container: str) -> running.Socket:
        with translated(self._endpoint):
            stream = self._api.attach(container)
        self._open.append(stream)
        return stream

    def events(self, container: str) -> Iterator[dict[str, Any]]:
        """With what happened before the subscription was in place; the id is new, so it is this run only."""
        with translated(self._endpoint):
            stream = self._api.events(container)
        self._open.append(stream)
        return self._translated_events(stream)

    def _translated_events(self, stream: Stream) -> Iterator[dict[str, Any]]:
        with translated(self._endpoint):
            yield from stream.documents()

    def close(self) -> None:
        for stream in self._open:
            stream.close()
        self._open.clear()

    def start(self, container: str) -> None:
        with translated(self._endpoint):
            self._api.start(container)

    def remove(self, container: str) -> None:
        self._runtime.remove(container)

    def was_out_of_memory(self, container: str) -> bool:
        with translated(self._endpoint):
            return self._runtime.was_out_of_memory(container)


def _not_pulled(reference: str, remedy: str, why: str) -> VerificationFailed:
    return VerificationFailed(f"{reference} cannot be pulled", remedy, id="download-failed", detail=why)


def _split(reference: str) -> tuple[str, str]:
    """Name and tag-or-digest as docker-py wants them; `latest` where none is said, never every tag of a repository."""
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(reference)
    return repository, tag or "latest"
