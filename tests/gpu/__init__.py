"""The whole way on a real NVIDIA GPU. `make test-gpu` runs it and records what was seen under bench/results/."""
