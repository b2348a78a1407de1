"""Engine source, base images, BuildKit, and reading back what was built."""
