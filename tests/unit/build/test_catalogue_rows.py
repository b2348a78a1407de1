"""images/engines.yaml and images/targets.yaml: what they say, and that every fault is told with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.catalog.buildfailures import build_failures, diagnose_build
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.errors import BadConfiguration
from sdrun.resources import images_dir

Copy = Callable[[str, str, str], Path]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of a catalogue file with one text exchanged."""

    def make(name: str, old: str, new: str) -> Path:
        text = (images_dir() / name).read_text(encoding="utf-8")
        assert text.count(old) >= 1, f"{old!r} is no longer in {name}"
        file = tmp_path / name
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        return file

    return make


def test_the_engine() -> None:
    engine = engines()["sdcpp-90e87bc"]
    assert engine.revision.startswith("90e87bc")
    assert engine.cmake["GGML_NATIVE"] == "OFF"
    assert set(engine.cpu_levels["x86-64-v3"].values()) == {"ON"}
    assert "euler_a" in engine.samplers
    assert "karras" in engine.schedulers


def test_one_row_adds_a_target(copy: Copy) -> None:
    row = """targets:
  - target: cu124-sm89
    toolkit: "12.4"
    sass: ["89"]
    toolchains: [nvidia, debian]
    fatbin_compression: none
    platform: linux/amd64
    cpu_level: x86-64-v3
    base: debian-bookworm
"""
    found = targets(copy("targets.yaml", "targets:\n", row)).rows
    assert [row.tag for row in found] == ["sdcpp-90e87bc-cu124-sm89", "sdcpp-90e87bc-cpu"]
    assert str(found[0].min_driver) == "525.60.13"


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("toolkit", '"12.7"', "toolkits.yaml does not know CUDA 12.7"),
        ("sass", '["120"]', "CUDA 12.4 emits no machine code for 120"),
        ("sass", "[89]", r"sass\[0\]: must be a string, not 89"),
        ("toolchains", "[homebrew]", "'homebrew' does not provide CUDA 12.4"),
        ("toolchains", "[]", "toolchains: is missing or empty"),
        ("fatbin_compression", "gzip", "must be one of none, lz4, zstd"),
    ],
)
def test_cuda_rows_that_cannot_be(copy: Copy, key: str, value: str, fault: str) -> None:
    fields = {"toolkit": '"12.4"', "sass": '["89"]', "toolchains": "[nvidia]", "fatbin_compression": "none", key: value}
    fields |= {"platform": "linux/amd64", "cpu_level": "x86-64-v3", "base": "debian-bookworm"}
    id = "cu127-sm89" if key == "toolkit" else "cu124-sm120" if value == '["120"]' else "cu124-sm89"
    row = f"targets:\n  - target: {id}\n" + "".join(f"    {name}: {text}\n" for name, text in fields.items())
    with pytest.raises(BadConfiguration, match=rf"targets.yaml:\d+: .*{fault}"):
        targets(copy("targets.yaml", "targets:\n", row))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("- target: cpu", "- target: gpu", r"targets\[0\].target: must be a target id"),
        ("- target: cpu", "- target: cpu\n    archs: []", r"targets\[0\].archs: is not a key here"),
        ("- target: cpu", '- target: cpu\n    toolkit: "12.4"', r"targets\[0\].toolkit: must be 'absent'"),
        ("- target: cpu", '- target: cpu\n    sass: ["89"]', r"targets\[0\].sass: has no meaning"),
        ("- target: cpu", "- target: cpu\n    toolkit: 12.4", r"targets\[0\].toolkit: must be a string, not 12.4"),
        ("linux/amd64", "linux/sparc", r"targets\[0\].platform: must be one of linux/amd64"),
        ("cpu_level: x86-64-v3", "cpu_level: fast", r"targets\[0\].cpu_level: must be one of x86-64-v3"),
        ("    base: debian-bookworm", "    base: alpine", r"targets\[0\].base: must be one of debian-bookworm"),
        ("engine: sdcpp-90e87bc", "engine: unknown", r"targets\[0\].engine: no engine 'unknown'"),
        ("packages: [ccache,", "packages: ['a; rm -rf /',", r"bases\[0\].packages: 'a; rm -rf /' is not the name"),
    ],
)
def test_faults_of_targets(copy: Copy, old: str, new: str, fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"targets.yaml:\d+: {fault}") as raised:
        targets(copy("targets.yaml", old, new))
    assert raised.value.exit_code == 8


def test_duplicate_rows_and_all_faults_at_once(copy: Copy) -> None:
    row = "  - target: cpu\n    platform: linux/amd64\n    cpu_level: x86-64-v3\n    base: debian-bookworm\n"
    wrong = (
        "targets:\n  - target: cu124-sm89\n    platform: linux/amd64\n    cpu_level: x86-64-v3\n    base: debian-bookworm\n"
        + row
    )
    with pytest.raises(BadConfiguration) as raised:
        targets(copy("targets.yaml", "targets:\n", wrong))
    assert "targets[0].toolkit: must be '12.4'" in raised.value.message
    assert "targets[2].target: cpu for linux/amd64 stands here a second time" in raised.value.message


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('GGML_NATIVE: "OFF"', "GGML_NATIVE: OFF", r"engines\[0\].cmake.GGML_NATIVE: must be a string, not (?i:false)"),
        ('"998d1957', '"XYZ', r"engines\[0\].source.sha256: must be 64 lower-case hex digits"),
        ("kind: pypi", "kind: ftp", r"engines\[0\].source.kind: must be one of pypi, git, path"),
        ("subdir: vendor", "subdir: ../..", r"engines\[0\].source.subdir: must be a folder inside"),
        ('date: "2026-05-06"', 'date: "yesterday"', r"engines\[0\].date: must be a date"),
        ('revision: "90e87bc', 'revision: "HEAD', r"engines\[0\].revision: must be a full commit"),
        ("      cli: sd-cli\n", "", r"engines\[0\].binaries: must name the role cli"),
        ("      - euler\n", "      - euler\n      - euler\n", r"engines\[0\].samplers: names something twice"),
    ],
)
def test_faults_of_engines(copy: Copy, old: str, new: str, fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"engines.yaml:\d+: {fault}"):
        engines(copy("engines.yaml", old, new))


@pytest.mark.parametrize("cause", build_failures(), ids=lambda cause: cause.key)
def test_every_build_failure_is_recognised(cause: object) -> None:
    for text in cause.texts:  # type: ignore[attr-defined]
        log = "#8 3.1 " + text.text.replace("{", "").replace("}", "") + "\n#8 ERROR: exit code: 1\n"
        verdict = diagnose_build(b"#8 1.0 fine\n" + log.encode())
        assert verdict is not None
        assert verdict.id == cause.id  # type: ignore[attr-defined]


def test_a_compile_error_is_no_known_failure() -> None:
    assert diagnose_build(b"#8 3.1 /src/main.c:3:1: error: expected ';'\n") is None
