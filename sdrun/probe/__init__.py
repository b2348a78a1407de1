"""Host facts: what NVML, libcuda, nvidia-smi and sysfs say about one machine. Nothing is probed at import.

Names are imported from their modules (`sdrun.probe.detect`, `.overrides`, `.hostfile`, `.visible`): to read a file of facts
must not cost the import of every probe.
"""
