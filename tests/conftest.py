"""For every test: the catalogue's own facts, and the folder `resolving` beside this file importable by name."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.facts import CudaFacts
from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import connect
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

# A shell without job control starts background jobs with SIGINT ignored, and so would be whatever a test starts; nohup does the
# same with SIGHUP. Tests that send these signals mean a program that heeds them.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# The same examples every time, so that a run says something about the change and not about luck; new ones by
# HYPOTHESIS_PROFILE=search. No deadline: the machines that run this are shared.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def facts() -> CudaFacts:
    """The CUDA facts as shipped in images/."""
    return load_cuda_facts()


def cpu_image_facts() -> LocalImage:
    """What a runtime says of a cpu image."""
    labels = {"io.sdrun.target": "cpu", "io.sdrun.engine": "sdcpp-90e87bc", "io.sdrun.platform": "linux/amd64"}
    return LocalImage(f"sha256:{'c' * 64}", ("sdrun:sdcpp-90e87bc-cpu",), (), labels, 56_000_000, "linux/amd64")


@pytest.fixture
def fake_runtime() -> FakeRuntime:
    """A runtime without containers that has the cpu image."""
    return FakeRuntime(local=[cpu_image_facts()])


@pytest.fixture(scope="session")
def docker_runtime() -> Iterator[ContainerRuntime]:
    """The Docker daemon of this machine; skips where none answers."""
    try:
        runtime = connect("docker")
    except RuntimeUnavailable as absent:
        pytest.skip(f"needs a Docker daemon: {absent}")
    yield runtime
    runtime.close()


@pytest.fixture(scope="session")
def cpu_image(docker_runtime: ContainerRuntime) -> LocalImage:
    """The real cpu image, built by sdrun unless the same recipe was built before."""
    from sdrun.build.image import build
    from sdrun.catalog.engines import engines
    from sdrun.catalog.targets import targets

    catalogue = targets()
    target = next(row for row in catalogue.rows if str(row.id) == "cpu")
    built = build(
        target,
        engines()[target.engine],
        catalogue.bases[target.base],
        docker_runtime,
        say=print,
        on_step=lambda step: None,
    )
    image = docker_runtime.image(built.reference)
    assert image is not None
    return image
