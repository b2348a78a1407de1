"""`sdrun publish` and images with pruned libraries: what no GPU has run is refused before anything leaves this machine."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sdrun.build import publishing
from sdrun.build.proof import Proof
from sdrun.build.publishing import Publication, check_runs, push_image
from sdrun.catalog.targets import targets
from sdrun.cli import publishing as cli_publishing
from sdrun.cli.console import Console
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.gpurun import GpuRun
from sdrun.core.target import Target, TargetId
from sdrun.core.version import DriverVersion
from sdrun.errors import VerificationFailed
from sdrun.runtime.fake import FakeRuntime

LIBRARY, OTHER = "a" * 64, "b" * 64


class Untouched:
    """A registry, or a runtime, that nobody may ask for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def target(*, pruned: bool = True) -> Target:
    (row,) = [row for row in targets().rows if row.name == "cu124-sm90"]
    return replace(row, pruned=pruned)


def run(library: str = LIBRARY, capability: str = "9.0") -> GpuRun:
    return GpuRun(
        target().id, "linux/amd64", "sdcpp-90e87bc", library, "12.4.5.8", "NVIDIA H100", ComputeCapability.parse(capability),
        DriverVersion.parse("580.159.04"), "2026-11-23", "9 pictures", "bench/results/x.json",
    )  # fmt: skip


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[GpuRun]:
    runs: list[GpuRun] = []
    monkeypatch.setattr(publishing, "gpu_runs", lambda: tuple(runs))
    return runs


def test_a_recorded_run_of_these_very_bytes_lets_it_pass(recorded: list[GpuRun]) -> None:
    check_runs(target(pruned=False), "")
    recorded.append(run())
    check_runs(target())
    check_runs(target(), LIBRARY)


@pytest.mark.parametrize("runs", [[], [run(OTHER)], [run(capability="8.9")]])
def test_else_it_is_refused(recorded: list[GpuRun], runs: list[GpuRun]) -> None:
    recorded += runs
    with pytest.raises(VerificationFailed) as caught:
        check_runs(target(), LIBRARY)
    assert (caught.value.id, caught.value.exit_code) == ("gpu-run-missing", 7)
    assert "no run of its library aaaaaaaaaaaa... on a GPU of 9.0" in caught.value.message
    command = "sdrun selftest --image sdrun:sdcpp-90e87bc-cu124-sm90 --gpu auto --record-run cu124-sm90.json --cublas VERSION"
    assert command in caught.value.remedy


def test_nothing_is_built_or_pushed_where_a_row_has_no_run(recorded: list[GpuRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_publishing, "rows_here", lambda selector: [target(pruned=False), target()])
    monkeypatch.setattr("sdrun.runtime.connect", lambda wanted: Untouched())
    pushing = cli_publishing.Pushing(Console(quiet=True), Publication(Untouched()), no_build=False, skip_existing=False)
    with pytest.raises(VerificationFailed, match=r"records no run of it on a GPU of 9\.0"):
        pushing.all("cu124-sm90")


def test_a_dry_run_says_so(monkeypatch: pytest.MonkeyPatch, fake_runtime: FakeRuntime) -> None:
    none = replace(target(), id=TargetId.parse("cu118-sm61"), sass=(Arch.parse("61"),))
    monkeypatch.setattr(cli_publishing, "rows_here", lambda selector: [none])
    monkeypatch.setattr("sdrun.runtime.connect", lambda wanted: fake_runtime)
    monkeypatch.setattr("sdrun.catalog.gpu_runs.gpu_runs", lambda: ())
    registry = SimpleNamespace(find_manifest=lambda tag: None)
    lines = cli_publishing.dry_lines(Console(quiet=True), Publication(registry), "*")  # type: ignore[arg-type]
    assert list(lines) == [
        "sdcpp-90e87bc-cu118-sm61: has pruned libraries that no GPU has run: would be refused, and all that is named with it"
    ]


def test_an_image_with_other_bytes_than_those_that_ran_is_not_pushed(
    recorded: list[GpuRun], monkeypatch: pytest.MonkeyPatch, fake_runtime: FakeRuntime
) -> None:
    recorded.append(run(OTHER))
    proof = Proof((), "", 1, 1, pruned_library=LIBRARY)
    monkeypatch.setattr(publishing, "verify", lambda reference, runtime: (target(), proof))
    with pytest.raises(VerificationFailed) as caught:
        push_image(fake_runtime.local[0], fake_runtime, Publication(Untouched()))  # type: ignore[arg-type]
    assert caught.value.id == "gpu-run-missing"
