# `make quickstart`: from a bare machine to a picture. `make test`: the whole suite, with a real container runtime.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# hadolint and the like are installed beside Python
export PATH := $(abspath $(BIN)):$(PATH)

TARGETS ?= cu124-sm89

# what tests start besides: a registry, its signatures, the readers of our bake file and of our quadlets
FROM_DEBIAN := docker-registry=usr/bin/docker-registry cosign=usr/bin/cosign \
	docker-buildx=usr/libexec/docker/cli-plugins/docker-buildx podman=usr/libexec/podman/quadlet

.PHONY: broken-engines shapes shapes-check quickstart test test-gpu lint unit integration bench bench-gpu bench-images cuda clean runtime readme

quickstart:
	@tools/quickstart.sh

# Everything: style, types, layers, unit and property tests, and the integration tests against the real runtime and image.
test: $(VENV)/.dev runtime lint
	$(BIN)/sdrun build cpu
	@tools/from-debian.sh $(BIN) $(FROM_DEBIAN)
	$(BIN)/pytest -n 2 -m "not gpu" --cov=sdrun.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest -q tests/unit tests/property tests/golden

integration: $(VENV)/.dev runtime
	$(BIN)/pytest -q -m integration

# The whole way on this machine's NVIDIA GPU, with the image that is here for it (`make cuda TARGETS=...`), and the record of it in
# bench/results/. What was skipped, and why, stands at the end. Without a network: python3 -m pytest tests/gpu -m gpu
test-gpu: $(VENV)/.dev runtime
	@tools/from-debian.sh $(BIN) docker-registry=usr/bin/docker-registry
	$(BIN)/pytest -q -m gpu tests/gpu

runtime:
	@tools/container-runtime.sh

# CUDA images, built and proven: `make cuda TARGETS='cu124-sm{86,89}'`. The first one of a toolkit line installs the toolkit (2 GB)
# and compiles for some 20 CPU-minutes or more; `make test` builds none.
cuda: $(VENV)/.dev runtime
	$(BIN)/sdrun build '$(TARGETS)'

bench: $(VENV)/.dev runtime
	$(BIN)/sdrun build cpu
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/overhead.py --runs 10 --record
	$(BIN)/python bench/resolve.py --record
	$(BIN)/python bench/fleet.py --record
	$(BIN)/python bench/tiny_model.py
	$(BIN)/python bench/downloads.py
	$(BIN)/python bench/selftest.py measure

# What the CUDA images that are here hold and weigh, unpacked and to pull; a minute or two for each.
bench-images: $(VENV)/.dev runtime
	$(BIN)/python bench/builds.py $$(docker images --format '{{.Tag}}' sdrun | sed -n 's/^sdcpp-[0-9a-f]*-\(cu.*\)/\1/p' | sort) --record

# What needs a GPU: `bench/gpu.py --list` names the parts, ONLY=part,part chooses some. OUT_DIR is where results go.
bench-gpu: $(VENV)/.dev runtime
	@tools/from-debian.sh $(BIN) docker-registry=usr/bin/docker-registry
	$(BIN)/python bench/gpu.py $(if $(ONLY),--only $(ONLY))

# Engines with one mistake each, and whether `sdrun selftest` names it; compiles one file and links for each.
broken-engines: $(VENV)/.dev runtime
	$(BIN)/sdrun build cpu
	$(BIN)/python bench/broken_builds.py

# The README's tables, from images/ and bench/results/.
readme: $(VENV)/.dev
	$(BIN)/python tools/readme.py

$(VENV)/.dev: pyproject.toml tools/environment.sh
	@tools/environment.sh $(VENV) dev
	@touch $@

# Trains the model shapes on this machine's GPU (25 minutes on an H100); shapes-check compares PyTorch's pictures with the engine's,
# with random weights and with the shipped ones: `make shapes-check ENGINE=path/to/sd-cli`.
shapes: $(VENV)/.train
	$(BIN)/python -m models.shapes.train --out out/shapes
	$(BIN)/python -m models.shapes.export out/shapes out/shapes

shapes-check: $(VENV)/.train
	$(BIN)/python -m models.shapes.twin $(ENGINE)
	$(BIN)/python -m models.shapes.twin $(ENGINE) models/shapes/weights --type q4_0 --pixels 256

$(VENV)/.train: pyproject.toml tools/environment.sh
	@tools/environment.sh $(VENV) dev,train
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage out
