"""images/capabilities.yaml, toolkits.yaml and drivers.yaml: what is shipped reads, what cannot be is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.errors import BadConfiguration
from sdrun.resources import images_dir

FILES = ("drivers.yaml", "toolkits.yaml", "capabilities.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files to spoil."""
    for name in FILES:
        shutil.copy(images_dir() / name, tmp_path / name)
    return tmp_path


def spoiled(folder: Path, name: str, *edits: tuple[str, str]) -> list[str]:
    """The faults told after each `(old, new)` was replaced in that file, where `old` must stand."""
    path = folder / name
    text = path.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfiguration) as caught:
        load_cuda_facts(folder)
    assert caught.value.exit_code == 8
    assert caught.value.remedy == f"Correct {name} and run again."
    lines = text.splitlines()
    faults = caught.value.message.splitlines()
    for fault in faults:
        file, number, _ = fault.removeprefix(str(folder) + "/").split(":", 2)
        assert file == name
        assert 1 <= int(number) <= len(lines)
    return [fault.removeprefix(f"{path}:") for fault in faults]


def line_of(folder: Path, name: str, text: str) -> int:
    """The line `text` first stands at."""
    return next(n for n, row in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), 1) if text in row)


def test_the_shipped_files_read_and_are_read_once() -> None:
    assert load_cuda_facts() is load_cuda_facts()
    assert load_cuda_facts() == load_cuda_facts(images_dir())


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("drivers.yaml", "schema: sdrun.drivers/v1", "schema: sdrun.drivers/v2", "schema: must be 'sdrun.drivers/v1'"),
        ("drivers.yaml", 'driver: "450.80.02"', "driver: 450.80", "driver: must be a string, not 450.8"),
        ("drivers.yaml", 'driver: "450.80.02"', 'driver: "four"', "driver: must be a driver version"),
        ("drivers.yaml", 'toolkit_major: "12"', 'toolkit_major: "11"', "floors[1]: is a second row for 11"),
        ("drivers.yaml", 'zstd: {driver: "550.54.14"', 'zstd: {driver: "zstd"', "zstd.driver: must be a driver version"),
        ("drivers.yaml", 'jit_first_run_seconds: "40"', "jit_first_run_seconds: 40", "must be a string, not 40"),
        ("drivers.yaml", 'jit_first_run_seconds: "40"', 'jit_first_run_seconds: "soon"', "must be a whole number in quotes"),
        ("drivers.yaml", 'branch: "455", cuda: "11.1"', 'branch: "455", cuda: "10.1"', "branches[2]: does not come after"),
        ("drivers.yaml", 'branch: "455"', 'branch: "450"', "branches[2]: is a second row for 450"),
        ("drivers.yaml", 'l4t: "35"', 'l4t: "R35"', "l4t: must be an L4T release"),
        ("drivers.yaml", "desktop_code: true", 'desktop_code: "true"', "desktop_code: must be true or false"),
        ("drivers.yaml", "branches:", "twigs:", "branches: is missing"),
        ("toolkits.yaml", 'version: "12.4"', "version: 12.4", "version: must be a string, not 12.4"),
        ("toolkits.yaml", 'version: "12.5"', 'version: "12.4"', "is a second row for 12.4"),
        ("toolkits.yaml", 'suggest: "12.4 ', 'suggest: "12.7 ', "suggest: 12.7 is none of the toolkits"),
        ("toolkits.yaml", "compress_default: lz4", "compress_default: gzip", "must be among lz4, zstd"),
        ("toolkits.yaml", '"none speed balance size"', '"none fast"', "must be among none, speed, balance, size"),
        ("toolkits.yaml", 'driver: "550.54.14"', 'driver: "555.42.02"', "driver: 555.42.02 is not of branch 550"),
        ("toolkits.yaml", 'branch: "550"', 'branch: "555"', "branch: 555 speaks CUDA 12.5 in drivers.yaml, not 12.4"),
        ("toolkits.yaml", 'branch: "550"', 'branch: "551"', "branch: 551 speaks CUDA None in drivers.yaml, not 12.4"),
        ("toolkits.yaml", 'nvidia_image: "12.4.1"', 'nvidia_image: "12.5.1"', "nvidia_image: 12.5.1 is not a release of 12.4"),
        ("toolkits.yaml", 'sass: "35 37', 'sass: "35 35', "sass: names something twice"),
        ("toolkits.yaml", 'toolchains: "nvidia debian"', 'toolchains: "nvidia gentoo"', "must be among nvidia, debian, pypi"),
        ("capabilities.yaml", 'capability: "8.9"', "capability: 8.9", "capability: must be a string, not 8.9"),
        ("capabilities.yaml", 'capability: "5.2"', 'capability: "5.0"', "is a second row for 5.0"),
        ("capabilities.yaml", "platforms: amd64 sbsa", "platforms: x86", "platforms: must be among amd64, sbsa, tegra"),
        ("capabilities.yaml", 'last_driver_branch: "580"', 'last_driver_branch: "585"', "last_driver_branch: 585 is no branch"),
        ("capabilities.yaml", 'family: "12.0 12.1"', 'family: "12.1"', "family: must hold 12.0 itself"),
        ("capabilities.yaml", 'family: "12.0 12.1"', 'family: "12.0 12.2"', "names 12.2, which has no row"),
        ("capabilities.yaml", '    becomes_from: "13.0"\n', "", "becomes and becomes_from go together"),
        ("capabilities.yaml", 'becomes: "11.0"', 'becomes: "11.1"', "names 11.1, which has no row"),
        ("capabilities.yaml", "tegra: true", "tegra: yes please", "tegra: must be true or false"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(folder, name, old, new, said) -> None:
    faults = spoiled(folder, name, (old, new))
    assert any(said in fault for fault in faults), faults


def test_a_window_that_contradicts_the_toolkits_is_refused_toolkit_by_toolkit(folder) -> None:
    line = line_of(folder, "capabilities.yaml", 'capability: "9.0"')
    faults = spoiled(folder, "capabilities.yaml", ('a_from: "12.0"', 'a_from: "12.2"'))
    assert faults == [
        f"{line}: capabilities[14]: toolkit 12.0 lists 90a, against the window of this row",
        f"{line}: capabilities[14]: toolkit 12.1 lists 90a, against the window of this row",
    ]


def test_a_toolkit_that_does_not_list_what_a_window_promises(folder) -> None:
    path = folder / "toolkits.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("86 87 88 89", "86 87 89", 1), encoding="utf-8")
    with pytest.raises(BadConfiguration, match=r"toolkit 13\.0 does not list 88"):
        load_cuda_facts(folder)


def test_all_faults_of_a_file_are_told_at_once_in_its_order(folder) -> None:
    faults = spoiled(
        folder,
        "toolkits.yaml",
        ('version: "12.0"', "version: 12.0"),
        ('max_gcc: "15"', 'max_gcc: "new"'),
        ("compress_default: zstd", "compress_default: brotli"),
        ('suggest: "12.4 13.0', 'suggest: "12.4 12.4'),
    )
    assert len(faults) == 4
    assert [int(fault.split(":")[0]) for fault in faults] == sorted(int(fault.split(":")[0]) for fault in faults)


def test_a_key_twice(folder) -> None:
    faults = spoiled(folder, "drivers.yaml", ('branch: "450", cuda', 'branch: "450", cuda: "11.0", cuda'))
    assert "branches[1].cuda: stands here a second time" in faults[0]


@pytest.mark.parametrize("name", FILES)
def test_missing_empty_and_broken_files(folder, name) -> None:
    (folder / name).write_text("", encoding="utf-8")
    with pytest.raises(BadConfiguration, match="must be an object, not null"):
        load_cuda_facts(folder)
    (folder / name).write_text("a: [1", encoding="utf-8")
    with pytest.raises(BadConfiguration, match="is not YAML"):
        load_cuda_facts(folder)
    (folder / name).unlink()
    with pytest.raises(BadConfiguration, match="cannot be read"):
        load_cuda_facts(folder)


def test_every_version_in_the_files_is_a_quoted_string() -> None:
    """An unquoted 12.10 would be 12.1; PyYAML would hand over a float."""
    from sdrun.catalog.yamlfile import YamlFile

    def numbers(value: object) -> list[object]:
        if isinstance(value, dict):
            return [found for item in value.values() for found in numbers(item)]
        if isinstance(value, list):
            return [found for item in value for found in numbers(item)]
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []

    assert [numbers(YamlFile(images_dir() / name).data) for name in FILES] == [[], [], []]
