"""Host facts: NVML, libcuda, nvidia-smi, sysfs; each a tiny reader beside a pure parser."""
