"""images/engines.yaml, targets.yaml and toolchains.yaml: what they say, and that every fault is told with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.catalog.buildfailures import build_failures, diagnose_build
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.catalog.toolchains import toolchains
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.errors import BadConfiguration
from sdrun.fatbin.verdict import better_target
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


FIRST = "targets:\n"  # rows put behind it stand first


def test_one_row_adds_a_target(copy: Copy) -> None:
    """Which Dockerfile, bake plan and CI matrix follow from it: tests/unit/render/test_one_row.py."""
    found = targets(copy("targets.yaml", FIRST, FIRST + '  - {target: cu124-sm75, sass: ["75"], platform: linux/arm64}\n')).rows
    row = found[0]
    assert (row.tag, row.name) == ("sdcpp-90e87bc-cu124-sm75", "cu124-sm75-arm64")
    assert (str(row.min_driver), row.cpu_level, row.toolchains) == ("525.60.13", "armv8.2-a", ("debian", "nvidia"))
    assert len(found) == len(targets().rows) + 1


def test_a_row_may_say_what_its_line_says(copy: Copy) -> None:
    row = '  - {target: cu128-sm120, toolkit: "12.8", sass: ["120a"], toolchains: [local], fatbin_compression: none}\n'
    found = targets(copy("targets.yaml", FIRST, FIRST + row)).rows[0]
    assert (found.toolchains, found.fatbin_compression, found.base) == (("local",), "none", "debian-bookworm")
    assert found.toolchain is not None
    assert found.toolchain.gcc == 12


def test_what_the_targets_are() -> None:
    """Every capability that a line's toolkit emits and that has machines of the platform: issue by issue, the list is whole."""
    ids = {(str(row.id), row.platform) for row in targets().rows}
    for short in ("cu118", "cu124"):
        assert {(f"{short}-sm{n}", "linux/amd64") for n in (50, 52, 60, 61, 70, 75, 80, 86, 89, 90)} <= ids
    assert {(f"cu129-sm{n}", "linux/amd64") for n in (100, 103, 120)} <= ids
    assert {(f"cu130-sm{n}", "linux/amd64") for n in (75, 80, 86, 89, 90, 100, 103, 120)} <= ids
    assert {(f"cu130-sm{n}", "linux/arm64") for n in (87, 90, 110, 121)} <= ids
    assert {(f"{short}-multi", "linux/amd64") for short in ("cu118", "cu124", "cu129", "cu130", "cu135")} <= ids
    assert ("cpu", "linux/amd64") in ids


@pytest.mark.parametrize(
    "capability",
    # 10.7 needs a toolkit whose driver nobody has published yet
    [c for c, row in load_cuda_facts().capabilities.items() if "tegra" not in row.platforms and str(c) != "10.7"],
)
def test_a_refusal_names_a_target_that_exists(capability: ComputeCapability) -> None:
    suggested = better_target(capability, load_cuda_facts())
    assert suggested in {str(row.id) for row in targets().rows}


@pytest.mark.parametrize("capability", ["8.7", "9.0", "11.0", "12.1"])
def test_a_refusal_on_arm64_does_too(capability: str) -> None:
    suggested = better_target(ComputeCapability.parse(capability), load_cuda_facts())
    assert (suggested, "linux/arm64") in {(str(row.id), row.platform) for row in targets().rows}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{target: cu127-sm89, sass: ["89"]}', "toolkits.yaml does not know CUDA 12.7"),
        ('{target: cu128-sm89, sass: ["89"]}', "there is no line for CUDA 12.8"),
        ('{target: cu124-sm120, sass: ["120a"]}', "CUDA 12.4 emits no machine code for 120a"),
        ('{target: cu130-sm61, sass: ["61"]}', "CUDA 13.0 emits no machine code for 61"),
        ('{target: cu130-sm88, sass: ["120"]}', "must hold one arch, 88, as the id cu130-sm88 says"),
        ('{target: cu129-sm120f, sass: ["120"]}', "the engine compiles 120 as 120a"),
        ('{target: cu124-sm87, sass: ["87"]}', "linux/amd64 has no GPU of 8.7; they are on tegra, sbsa"),
        ("{target: cu124-sm87, sass: [87]}", r"sass\[0\]: must be a string, not 87"),
        ("{target: cu124-sm87, sass: [native]}", r"sass\[0\]: must be an arch such as .* not 'native'"),
        ("{target: cu124-sm87, sass: []}", "sass: is missing or empty"),
        ("{target: cu124-sm87}", "sass: is missing or empty"),
        ('{target: cu124-sm87, sass: ["87", "87"]}', "names 87 a second time"),
        ('{target: cu126-multi, sass: ["89"], toolchains: [local], fatbin_compression: lz4}', "must name several archs"),
        ('{target: cu124-sm87, sass: ["87"], ptx: ["120"]}', "the engine compiles 120 as 120a"),
        ('{target: cu124-sm87, sass: ["87"], ptx: ["100"]}', "CUDA 12.4 emits no PTX for 100"),
        ('{target: cu124-sm90a, sass: ["90a"], ptx: ["90a"]}', "no GPU would run PTX 90a"),
        ('{target: cu130-sm87, sass: ["120a"]}', "must hold one arch, 87"),
        (
            '{target: cu124-sm87, sass: ["87"], toolchains: [homebrew]}',
            "toolchains.yaml has no 'homebrew' that provides CUDA 12.4",
        ),
        ('{target: cu124-sm87, sass: ["87"], toolchains: []}', "toolchains: is empty"),
        ('{target: cu124-sm87, sass: ["87"], fatbin_compression: gzip}', "must be one of none, lz4, zstd"),
        ('{target: cu124-sm87, sass: ["87"], fatbin_compression: zstd}', "CUDA 12.4 cannot compress with zstd"),
        ('{target: cu124-sm87, sass: ["87"], base: debian-bookworm}', "is that of the toolchain"),
        ('{target: cu124-sm89, sass: ["89"]}', "cu124-sm89 for linux/amd64 stands here a second time"),
        ('{target: cu124-sm87, toolkit: "12.5", sass: ["87"]}', "must be '12.4' as the id cu124-sm87 says"),
    ],
)
def test_cuda_rows_that_cannot_be(copy: Copy, row: str, fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"targets.yaml:\d+: targets\[\d+\].*{fault}") as raised:
        targets(copy("targets.yaml", FIRST, f"{FIRST}  - {row}\n"))
    assert raised.value.exit_code == 8


PTX_80 = '  - {target: cu126-multi, sass: ["75", "90"], ptx: ["80"], toolchains: [local], fatbin_compression: lz4}\n'


def test_ptx_between_machine_code(copy: Copy) -> None:
    """A GPU of 8.6 would compile it, and the engine expect 8.0 there."""
    assert targets(copy("targets.yaml", FIRST, FIRST + PTX_80)).rows[0].ptx == (Arch(80),)


def test_ptx_that_nobody_would_run(copy: Copy) -> None:
    """Machine code serves every GPU of major 8, and on those of 10 the engine would expect 9.0."""
    with pytest.raises(BadConfiguration, match="no GPU would run PTX 80"):
        targets(copy("targets.yaml", FIRST, FIRST + PTX_80.replace('"90"]', '"80", "86", "90"]')))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("- {target: cpu,", "- {target: gpu,", r"targets\[0\].target: must be a target id"),
        ("- {target: cpu,", "- {target: cpu, archs: [],", r"targets\[0\].archs: is not a key here"),
        ("- {target: cpu,", '- {target: cpu, sass: ["89"],', r"targets\[0\].sass: has no meaning"),
        ("- {target: cpu,", "- {target: cpu, toolkit: 12.4,", r"targets\[0\].toolkit: has no meaning"),
        ("- {target: cpu,", "- {target: cpu, platform: linux/sparc,", r"targets\[0\].platform: must be one of linux/amd64"),
        ("- {target: cpu,", "- {target: cpu, cpu_level: fast,", r"targets\[0\].cpu_level: must be one of x86-64-v3"),
        ("base: debian-bookworm", "base: alpine", r"targets\[0\].base: must be one of debian-bookworm"),
        ("engine: sdcpp-90e87bc", "engine: unknown", r"targets\[0\].engine: no engine 'unknown'"),
        ("linux/amd64: x86-64-v3", "linux/amd64: fast", r"targets\[0\].cpu_level: 'fast', the default of linux/amd64, is none"),
        ('toolkit: "11.8", tool', "toolkit: 11.8, tool", r"lines\[0\].toolkit: must be a string, not 11.8"),
        ('toolkit: "12.4", tool', 'toolkit: "11.8", tool', r"lines\[1\].toolkit: CUDA 11.8 stands here a second time"),
    ],
)
def test_faults_of_targets(copy: Copy, old: str, new: str, fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"targets.yaml:\d+: {fault}") as raised:
        targets(copy("targets.yaml", old, new))
    assert raised.value.exit_code == 8


def test_duplicate_rows_and_all_faults_at_once(copy: Copy) -> None:
    wrong = "targets:\n  - {target: cu124-sm89}\n  - {target: cpu, base: debian-bookworm}\n"
    with pytest.raises(BadConfiguration) as raised:
        targets(copy("targets.yaml", "targets:\n", wrong))
    lines = raised.value.message.splitlines()
    assert len(lines) == 3
    assert "targets[0].sass: is missing or empty" in lines[0]
    assert "targets[2].target: cpu for linux/amd64 stands here a second time" in lines[1]
    assert "cu124-sm89 for linux/amd64 stands here a second time" in lines[2]


# What cannot be, each by the line that says it: a CUDA row has a line for every key.
IMPOSSIBLE = """\
  - target: cu118-sm120
    sass: ["120a"]
  - target: cu130-sm61
    sass: ["61"]
  - target: cu124-sm87
    sass: [native]
  - target: cu124-sm62
    sass: []
  - target: cu124-sm53
    sass: [53]
  - target: cu124-sm72
    sass: 72
  - target: cu126-multi
    sass: ["75", "80", "86", "90"]
    ptx: ["80"]
    toolchains: [local]
    fatbin_compression: lz4
  - target: cu124-sm61
    sass: ["61"]
  - target: cu131-sm75
    sass: ["75"]
    toolchains: [nvidia]
    fatbin_compression: best
    platform: linux/riscv64
    toolkit: "13.0"
"""


def test_all_that_cannot_be_is_told_at_once_with_its_line(copy: Copy) -> None:
    """A capability outside a toolkit's window (above, below), `native`, an empty list, one without quotes, no list, PTX that no
    GPU would run, a row twice, and a row with five faults."""
    path = copy("targets.yaml", "targets:\n", "targets:\n" + IMPOSSIBLE)
    text = path.read_text(encoding="utf-8").splitlines()
    first = text.index("targets:") + 2  # lines are counted from 1
    second = next(n for n, line in enumerate(text, 1) if n > first + 30 and "cu124-sm61" in line)
    with pytest.raises(BadConfiguration) as raised:
        targets(path)
    told = [line.removeprefix(f"{path}:").split(": ", 1) for line in raised.value.message.splitlines()]
    expected = [
        (2, "targets[0].sass: CUDA 11.8 emits no machine code for 120a"),
        (4, "targets[1].sass: CUDA 13.0 emits no machine code for 61"),
        (6, "targets[2].sass[0]: must be an arch such as"),
        (8, "targets[3].sass: is missing or empty"),
        (10, "targets[4].sass[0]: must be a string, not 53"),
        (12, "targets[5].sass: must be a list, not 72"),
        (15, "targets[6].ptx: no GPU would run PTX 80"),
        (22, "targets[8].toolchains: toolchains.yaml has no 'nvidia' that provides CUDA 13.1"),
        (23, "targets[8].fatbin_compression: must be one of none, lz4, zstd, not 'best'"),
        (24, "targets[8].platform: must be one of linux/amd64, linux/arm64, not 'linux/riscv64'"),
        (25, "targets[8].toolkit: must be '13.1' as the id cu131-sm75 says, not '13.0'"),
        (second - first + 1, "cu124-sm61 for linux/amd64 stands here a second time"),
    ]
    assert [int(line) - first + 1 for line, _ in told] == [line for line, _ in expected]
    assert [reason for (_, reason), (_, words) in zip(told, expected, strict=True) if words not in reason] == []
    assert raised.value.exit_code == 8


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("packages: [ccache,", "packages: ['a; rm -rf /',", r"bases\[0\].packages: 'a; rm -rf /' is not the name"),
        (
            'gcc: ["11", "12"]',
            'gcc: ["12"]',
            r"toolchains\[0\].base: .* has no g\+\+ below 12, and CUDA 11.8 accepts none above 11",
        ),
        ('gcc: ["11", "12"]', "gcc: [11, 12]", r"bases\[0\].gcc\[0\]: must be a string, not 11"),
        ("    patched_for_glibc: true\n", "", r"toolchains\[1\].base: the headers of CUDA 12.4 clash with glibc 2.41"),
        ('glibc: "2.36"', "glibc: 2.36", r"bases\[0\].glibc: must be a string"),
        ("toolchain: debian", "toolchain: homebrew", r"toolchains\[0\].toolchain: must be one of debian, nvidia"),
        ('toolkit: "11.8"', 'toolkit: "12.7"', r"toolchains\[0\].toolkit: toolkits.yaml does not know CUDA 12.7"),
        ('toolkit: "11.8"', 'toolkit: "12.5"', r"toolchains\[0\].toolchain: 'debian' does not provide CUDA 12.5"),
        ("nvcc==13.0.88", "nvcc>=13", r"toolchains\[\d\].wheels: 'nvidia-cuda-nvcc>=13' is not name==version"),
        ("sections: [contrib,", "sections: ['/',", r"toolchains\[0\].sections: '/' is not a section"),
        ("root: /usr\n", "root: usr; x\n", r"toolchains\[0\].root: must be an absolute path"),
        (
            '{toolchain: nvidia, toolkit: "12.4"',
            '{toolchain: nvidia, toolkit: "11.8"',
            "nvidia for CUDA 11.8 stands here a second",
        ),
    ],
)
def test_faults_of_toolchains(copy: Copy, old: str, new: str, fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"toolchains.yaml:\d+: .*{fault}"):
        toolchains(copy("toolchains.yaml", old, new))


def test_toolchains_that_cannot_compile_are_told_at_once(copy: Copy) -> None:
    """A base whose compilers are all too new for the toolkit and whose C library its headers clash with, and a row twice."""
    path = copy(
        "toolchains.yaml",
        "\ntoolchains:\n",
        """
  - {base: too-new, image: "debian:sid", packages: [cmake], glibc: "2.42", gcc: ["15"], licence: MIT}

toolchains:
  - {toolchain: nvidia, toolkit: "12.9", base: too-new, root: /usr/local/cuda, stub: true, static: true}
  - {toolchain: pypi, toolkit: "13.1", base: too-new, root: /usr/local/cuda, stub: false, static: false}
  - {toolchain: pypi, toolkit: "13.1", base: debian-trixie, root: /usr/local/cuda, stub: false, static: false}
  - {toolchain: pypi, toolkit: "13.1", base: debian-trixie, root: /usr/local/cuda, stub: false, static: false}
""",
    )
    with pytest.raises(BadConfiguration) as raised:
        toolchains(path)
    text = path.read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(text, 1) if "12.9" in line and "too-new" in line)
    assert raised.value.message.splitlines() == [
        f"{path}:{first}: toolchains[0].base: too-new has no g++ below 15, and CUDA 12.9 accepts none above 14; the headers "
        "of CUDA 12.9 clash with glibc 2.41 and later; too-new has 2.42",
        f"{path}:{first + 1}: toolchains[1].base: the headers of CUDA 13.1 clash with glibc 2.42 and later; too-new has 2.42",
        f"{path}:{first + 3}: toolchains[3].toolkit: pypi for CUDA 13.1 stands here a second time",
    ]


def test_the_newest_compiler_that_the_toolkit_accepts() -> None:
    chosen = {(row.kind, str(row.toolkit)): row.gcc for row in toolchains().rows.values()}
    assert chosen["debian", "11.8"] == 11
    assert chosen["debian", "12.4"] == 13
    assert chosen["nvidia", "12.4"] == 12  # all that its Ubuntu has
    assert chosen["pypi", "13.0"] == 14
    assert chosen["local", "12.0"] == 12


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
