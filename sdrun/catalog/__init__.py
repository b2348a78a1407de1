"""images/*.yaml -> core values. The only place that reads those files; refuses what is inconsistent."""
