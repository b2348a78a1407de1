"""The container runtime behind one Protocol: Docker, Podman, a fake. `connect` is the door; importing this costs nothing."""

from sdrun.runtime.connection import connect

__all__ = ["connect"]
