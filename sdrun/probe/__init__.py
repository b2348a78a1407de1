"""Host facts: what NVML, libcuda, nvidia-smi and sysfs say about one machine. Nothing is probed at import."""

from sdrun.probe.detect import detect
from sdrun.probe.hostfile import read_host_facts
from sdrun.probe.overrides import apply_overrides, current_host
from sdrun.probe.visible import visible_devices

__all__ = ["apply_overrides", "current_host", "detect", "read_host_facts", "visible_devices"]
