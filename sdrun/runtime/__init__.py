"""The container runtime behind one Protocol: Docker, Podman, a fake."""
