"""Podman through the Docker-compatible API of its socket; creation goes through Podman's own API (see podman_spec)."""

from __future__ import annotations

from typing import Any, ClassVar

from sdrun.core.host import RuntimeFacts
from sdrun.runtime import hardening
from sdrun.runtime.api import Refused
from sdrun.runtime.client import ApiRuntime
from sdrun.runtime.endpoints import RuntimeName
from sdrun.runtime.inventory import podman_facts
from sdrun.runtime.protocol import ContainerSpec, NetworkKind

_LIBPOD = "/v4.0.0/libpod"  # the oldest version of Podman's own API that Podman 4 and later answer to


class PodmanRuntime(ApiRuntime):
    """Podman 4.1 (the first with CDI) and later, rootless or not."""

    runtime_name: ClassVar[RuntimeName] = "podman"

    def facts(self) -> RuntimeFacts:
        """See ContainerRuntime."""
        return podman_facts(self._version)

    def create(self, spec: ContainerSpec, name: str) -> str:
        """See ApiRuntime."""
        return self._api.create_libpod_container(_LIBPOD, hardening.podman_spec(spec, name, self._traits))

    @property
    def reachable_network(self) -> NetworkKind:
        """See ContainerRuntime."""
        return "published"

    def was_out_of_memory(self, container: str) -> bool:
        """Podman has no event for it. Between the end of a container and its removal lies its cleanup (0.1 s), in which it can
        still be asked; if that was missed the answer is no."""
        try:
            state: dict[str, Any] = self._api.inspect_container(container)["State"]
        except Refused:  # gone: 404, or 500 where it goes while it is looked up
            return False
        return bool(state.get("OOMKilled"))
