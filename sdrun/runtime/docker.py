"""Docker's own daemon."""

from __future__ import annotations

from typing import ClassVar

from sdrun.core.host import RuntimeFacts
from sdrun.runtime import hardening
from sdrun.runtime.client import ApiRuntime
from sdrun.runtime.endpoints import RuntimeName
from sdrun.runtime.faults import reading
from sdrun.runtime.inventory import docker_facts
from sdrun.runtime.network import NETWORKS, ensure
from sdrun.runtime.protocol import ContainerSpec, NetworkKind


class DockerRuntime(ApiRuntime):
    """Docker Engine 20.10 and later."""

    runtime_name: ClassVar[RuntimeName] = "docker"

    def facts(self) -> RuntimeFacts:
        """See ContainerRuntime."""
        with reading(self._endpoint):
            return docker_facts(self._version, self._info)

    def create(self, spec: ContainerSpec, name: str) -> str:
        """See ApiRuntime."""
        traits = self._traits
        if spec.network in NETWORKS:
            ensure(self._api, NETWORKS[spec.network])
        return self._api.create_container(name, hardening.docker_spec(spec, name, traits))

    @property
    def reachable_network(self) -> NetworkKind:
        """See ContainerRuntime. Networks of a rootless daemon, and of Docker Desktop's virtual machine, are out of sight."""
        shared = self._endpoint.socket is not None and self._info.get("OperatingSystem") != "Docker Desktop"
        return "internal" if shared and not self._traits.rootless else "published"

    def was_out_of_memory(self, container: str) -> bool:
        """Docker says it by an `oom` event."""
        return False
