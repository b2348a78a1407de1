"""What the tests on a real GPU share, and the record of them: bench/results/end_to_end_<gpu>.json, or the same in the folder
that OUT_DIR names. Written where the whole folder was run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sdrun.catalog.runtimes import zstd_layers_from
from sdrun.core.labels import PTX, TARGET, target_from_labels
from sdrun.core.layers import reads_zstd
from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime, LocalImage
from tests.gpu.published import Shop, published
from tests.gpu.running import ROOT, Sdrun, containers, nothing_more_than, unused_networks

_CONTROL = "sdrun-control:"
_rows: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Sdrun:
    """sdrun for what several tests need once."""
    return Sdrun(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def host(shared: Sdrun) -> dict[str, Any]:
    """Host facts. Skips where there is no GPU."""
    found = shared.answer("detect")
    if not found["gpus"]:
        pytest.skip(f"there is no NVIDIA GPU here ({'; '.join(found.get('notes', ())) or 'no driver'})")
    return found


@pytest.fixture(scope="session")
def runtime() -> Iterator[ContainerRuntime]:
    """Docker. Skips where it does not answer: how images are published and removed is Docker's way."""
    try:
        found = connect("docker")
    except RuntimeUnavailable as absent:
        pytest.skip(f"needs a Docker daemon: {absent}")
    yield found
    found.close()


@pytest.fixture(scope="session")
def plan(host: dict[str, Any], runtime: ContainerRuntime, shared: Sdrun) -> dict[str, Any]:
    """What runs here of the local images. Skips where none does."""
    done = shared("resolve", "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "status" in answer, f"neither plan nor refusal: {done.stdout}"
    if answer["status"] != "ok":
        pytest.skip(f"no image on this machine runs on its GPU: {answer['error']['message']} {answer['error']['remedy']}")
    return answer


@pytest.fixture(scope="session")
def local(runtime: ContainerRuntime) -> list[LocalImage]:
    """The engine images that are here under a name, control images among them."""
    return [image for image in runtime.images(TARGET) if image.tags]


@pytest.fixture(scope="session")
def stranger(local: list[LocalImage], host: dict[str, Any]) -> LocalImage:
    """An image with machine code for GPUs of other majors alone. Skips where there is none."""
    majors = {gpu["compute_capability"].partition(".")[0] for gpu in host["gpus"]}
    for image in sorted(local, key=lambda image: not image.tags[0].startswith(_CONTROL)):
        held = target_from_labels(image.labels)
        if held.sass and not held.ptx and not {str(arch.capability).partition(".")[0] for arch in held.sass} & majors:
            return image
    pytest.skip("needs an image for another GPU: python bench/control_images.py 89, or sdrun build of another target")


@pytest.fixture(scope="session")
def ptx_only(local: list[LocalImage]) -> LocalImage:
    """An image without machine code. Skips where there is none."""
    for image in local:
        if image.labels.get(PTX) and not target_from_labels(image.labels).sass:
            return image
    pytest.skip("needs an image that holds PTX alone: python bench/control_images.py ptx80")


@pytest.fixture(scope="module")
def shop(
    plan: dict[str, Any],
    local: list[LocalImage],
    runtime: ContainerRuntime,
    shared: Sdrun,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """A registry with the image that runs here, which is on this machine no more, and with the cpu image where that is here."""
    others = ["cpu"] if any(image.labels[TARGET] == "cpu" for image in local) else []
    form = "zstd" if reads_zstd(runtime.facts(), zstd_layers_from()) else "gzip"  # packed as this machine reads it
    with published(shared, plan["target"], plan["image"], others, form, tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture
def sdrun(tmp_path: Path) -> Sdrun:
    """sdrun in a folder of the test."""
    return Sdrun(tmp_path)


@pytest.fixture(autouse=True)
def nothing_left(host: dict[str, Any], runtime: ContainerRuntime) -> Iterator[None]:
    """Neither containers nor networks are left by any test."""
    before = containers(), unused_networks()
    yield
    nothing_more_than(before)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One row a test: what it asks, how it ended, how long it took (its fixtures beside it), what it has seen."""
    if "tests/gpu/" not in report.nodeid:
        return
    row = _rows.setdefault(report.nodeid.rpartition("/")[2], {"verdict": "passed", "seconds": 0.0, "preparing_seconds": 0.0})
    row["seconds" if report.when == "call" else "preparing_seconds"] += report.duration
    if report.outcome != "passed":
        row["verdict"] = report.outcome
        row["why"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext[-600:]
    if report.when == "teardown":
        row |= {"seen": dict(report.user_properties)} if report.user_properties else {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the record, where something ran and everything was to run."""
    partly = session.config.option.keyword or any("::" in word or word.endswith(".py") for word in session.config.args)
    if partly or not any(row["verdict"] != "skipped" for row in _rows.values()):
        return
    sys.path.insert(0, str(ROOT / "bench"))
    import record

    rows = [{"check": name, **_rounded(row)} for name, row in _rows.items()]
    verdicts = [row["verdict"] for row in rows]
    figures = {
        "checks": len(rows),
        **{verdict: verdicts.count(verdict) for verdict in ("passed", "failed", "skipped")},
        "seconds": round(sum(row["seconds"] + row["preparing_seconds"] for row in rows), 1),
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "rows": rows,
    }
    facts = record.gpu_facts()
    document = record.document("end_to_end", figures, gpu=facts) | {"rerun": "make test-gpu"}
    path = record.out_folder() / f"end_to_end_{record.slug(str(facts['device']))}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
