"""images/ci.yaml: what is shipped reads, and every fault is told with its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.catalog.ci import ci
from sdrun.catalog.targets import targets
from sdrun.errors import BadConfiguration
from sdrun.resources import images_dir


def test_a_build_that_does_not_fit_its_runner_frees_disk() -> None:
    row = next(row for row in targets().rows if row.toolchain is not None)
    assert row.toolchain is not None
    facts = ci()
    room = facts.runner(row).disk_gb - facts.besides_gb
    for need, frees in ((room, False), (room + 1, True)):
        assert replace(facts, disk_gb={row.toolchain.kind: need}).frees_disk(row) is frees


@pytest.mark.parametrize("row", targets().rows, ids=lambda row: row.name)
def test_no_target_is_left_out(row) -> None:
    assert ci().runner(row).label.endswith("-arm") == (row.platform == "linux/arm64")
    assert ci().frees_disk(row) in (True, False)


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (images_dir() / "ci.yaml").read_text(encoding="utf-8")
    for old, new in (
        ('nvidia, disk_gb: "16"', "nvidia, disk_gb: 16"),
        ("platform: linux/arm64", "platform: linux/amd64"),
        ("toolchain: pypi", "toolchain: none"),
        ('debian, disk_gb: "12"', 'debian, disk_gb: "much"'),
        ("toolchain: local,", "toolchain: local, swap: true,"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "ci.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BadConfiguration) as raised:
        ci(tmp_path / "ci.yaml")
    faults = [line.removeprefix(f"{tmp_path}/ci.yaml:") for line in raised.value.message.splitlines()]
    said = ["stands here a second time", "stands here a second time", "whole number of gigabytes", "is not a key here"]
    assert [one for one, words in zip(faults, [*said, "must be a string, not 16"], strict=True) if words not in one] == []
    lines = [int(fault.split(":")[0]) for fault in faults]
    assert lines == sorted(set(lines))


def test_another_schema(tmp_path: Path) -> None:
    (tmp_path / "ci.yaml").write_text("schema: sdrun.ci/v2\n", encoding="utf-8")
    with pytest.raises(BadConfiguration, match=r"must be 'sdrun\.ci/v1'"):
        ci(tmp_path / "ci.yaml")
