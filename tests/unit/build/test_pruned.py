"""Targets whose cuBLAS holds no other archs' code: what may be pruned, what a build of it says, and how the link is made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.build.choice import with_local_toolkit, with_toolchain
from sdrun.build.image import BuiltImage
from sdrun.build.local import pruned, with_local_source
from sdrun.build.proof import Proof, _pruned_library
from sdrun.build.rootfs import open_rootfs
from sdrun.catalog.buildfailures import diagnose_build
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.cli.build import summary, to_json
from sdrun.core import target as targeting
from sdrun.core.capability import Arch
from sdrun.core.engine import Engine
from sdrun.core.labels import image_labels, index_image_from_labels, target_from_labels
from sdrun.core.target import Target
from sdrun.errors import BadConfiguration, UsageProblem
from sdrun.render.dockerfile import render
from sdrun.resources import images_dir, templates_dir

LIB = "usr/lib/x86_64-linux-gnu/"


def row(name: str) -> Target:
    return next(row for row in targets().rows if row.name == name)


def labels_of(target: Target, engine: Engine) -> dict[str, str]:
    return image_labels(target, engine, targets().bases[target.base])


def test_pruned_libraries_wait_for_a_run(engine: Engine) -> None:
    """What cuBLAS lacks without other archs' code cannot be read from it; the label, the row and the summary say so."""
    target = replace(row("cu130-sm90"), pruned=True)
    labels = labels_of(target, engine)
    assert labels["io.sdrun.pruned-libraries"] == "yes"
    assert target_from_labels(labels).pruned
    assert targeting.to_json(target)["pruned"] is True
    assert not target_from_labels(labels_of(row("cu130-sm90"), engine)).pruned
    found = index_image_from_labels(labels, "", "linux/amd64")
    image = BuiltImage("sdrun:x", found, Proof((), "", 1, 1, pruned_library="ab"), "", False, 1.0, None, (Arch(90),))
    assert summary(image).endswith(
        "; its libraries were pruned, so it counts as proven only after a recorded run on a GPU of 9.0"
    )
    assert (to_json(image)["pruned_library"], to_json(image)["awaits_run_on"]) == ("ab", ["90"])


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            '{target: cu130-sm80, sass: ["80"]',
            "pruned: true",
            r"pypi has no static libraries to prune; .*: \[nvidia, local\]",
        ),
        ('{target: cu124-multi, sass: ["89", "90"], ptx: ["90"]', "pruned: true", "PTX is for GPUs to come"),
        ('{target: cu124-sm80, sass: ["80"]', 'pruned: "yes"', "must be true or false"),
        ("{target: cpu, base: debian-bookworm", "pruned: true", "has no meaning for a target without CUDA code"),
        ('{target: cu124-sm80, sass: ["80"]', "pruned: true", None),
        ('{target: cu130-sm80, sass: ["80"]', "pruned: true, toolchains: [nvidia]", None),
    ],
)
def test_rows(tmp_path: Path, old: str, new: str, fault: str | None) -> None:
    """What cannot be pruned is a fault of the row, with what to write instead."""
    text = (images_dir() / "targets.yaml").read_text(encoding="utf-8")
    assert f"{old}}}" in text
    (tmp_path / "targets.yaml").write_text(text.replace(f"{old}}}", f"{old}, {new}}}", 1), encoding="utf-8")
    if fault is None:
        before = sum(one.pruned for one in targets().rows)
        assert sum(one.pruned for one in targets(tmp_path / "targets.yaml").rows) == before + 1
        return
    with pytest.raises(BadConfiguration, match=rf"targets.yaml:\d+: .*pruned: {fault}"):
        targets(tmp_path / "targets.yaml")


def test_any_row_may_be_pruned_to_be_tried(engine: Engine) -> None:
    """Under a tag of its own: the row's tag stays with what the row says."""
    target, named = pruned(row("cu118-sm61"), engine)
    assert (target.tag, target.pruned, named.name) == ("sdcpp-90e87bc-pruned-cu118-sm61", True, "sdcpp-90e87bc-pruned")
    assert target.pruned_library == "libsdrun-cublas.so.11"
    assert row("cu118-sm61").pruned_library == ""
    assert "--keep 60 61;" in render(target, named, targets().bases[target.base])["Dockerfile"]
    already = replace(row("cu124-sm80"), pruned=True)
    assert pruned(already, engine) == (already, engine)


@pytest.mark.parametrize(
    ("name", "fault", "remedy"),
    [
        ("cpu", "cpu holds no libraries of a toolkit", "Select targets with GPU code"),
        ("cu124-multi", "cu124-multi holds PTX for GPUs to come", "Select targets without PTX"),
        ("cu135-sm90", "pypi has no static libraries of CUDA 13.5 to prune", "--toolchain"),
    ],
)
def test_what_cannot_be_pruned(engine: Engine, name: str, fault: str, remedy: str) -> None:
    with pytest.raises(UsageProblem, match=fault) as raised:
        pruned(row(name), engine)
    assert (raised.value.id, remedy in raised.value.remedy) == ("cannot-prune", True)


def test_an_engine_of_a_folder_has_whole_libraries_unless_it_is_said(tmp_path: Path, engine: Engine) -> None:
    """What it calls is not known; who wants it pruned says so."""
    target, local = with_local_source(replace(row("cu124-sm80"), pruned=True), engine, tmp_path)
    assert (target.tag, target.pruned) == ("local-cu124-sm80", False)
    assert pruned(target, local)[0].tag == "local-pruned-cu124-sm80"


def test_a_pruned_row_needs_a_toolchain_with_static_libraries() -> None:
    target = replace(row("cu130-sm90"), pruned=True, toolchains=("nvidia",))
    assert with_toolchain([target], targets(), "nvidia")[0].toolchain is not None
    with pytest.raises(UsageProblem, match=r"cu130-sm90 is pruned, and pypi has no static libraries") as raised:
        with_toolchain([target], targets(), "pypi")
    assert (raised.value.id, "nvidia" in raised.value.remedy) == ("cannot-prune", True)


def test_a_toolkit_of_this_machine_brings_the_static_libraries_that_are_pruned(tmp_path: Path, engine: Engine) -> None:
    root = tmp_path / "cuda"
    for name in (
        "include/cuda.h",
        "bin/nvcc",
        "lib64/libcublas_static.a",
        "lib64/libcublasLt_static.a",
        "lib64/libnpp_static.a",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("#define CUDA_VERSION 12040\n")
    _, toolkit = with_local_toolkit([row("cu124-sm89")], targets(), root)
    toolkit.copy_to(tmp_path / "context", engine.cublas_libraries)
    copied = {path.name for path in (tmp_path / "context").rglob("*.a")}
    assert copied == {"libcublas_static.a", "libcublasLt_static.a"}


def test_the_pruned_library_is_found_in_the_image(save_image: Callable[..., Path], target: Target, engine: Engine) -> None:
    """Its bytes are named; one where none is promised is a fault, as is none where one is."""
    tree = {f"{LIB}libsdrun-cublas.so.12": b"pruned"}
    wanted = replace(row("cu124-sm90"), pruned=True)
    whole = replace(wanted, pruned=False)

    def read(tree: dict[str, bytes], target: Target) -> tuple[str, list[str]]:
        with open_rootfs(save_image(tree)) as rootfs:
            return _pruned_library(rootfs, target)

    assert read(tree, wanted) == (hashlib.sha256(b"pruned").hexdigest(), [])
    assert read({f"{LIB}libc.so.6": b"x"}, whole) == ("", [])
    assert read(tree, whole) == ("", [f"/{LIB}libsdrun-cublas.so.12 was pruned, and the target promises whole libraries"])
    assert read({f"{LIB}libc.so.6": b"x"}, wanted) == ("", ["its pruned library libsdrun-cublas.so.12 is not in the image"])


class Link:
    """A toolkit of toys, and the script of the image build that prunes and links it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.toolkit = folder, folder / "toolkit"
        (self.toolkit / "lib64").mkdir(parents=True)
        (self.toolkit / "bin").mkdir()
        compiler = shutil.which("gcc")
        assert compiler is not None, "the tests need a C compiler"
        self.compiler = compiler
        # Like nvprune: options, the archive, -o and where to; what it was asked goes to a file.
        nvprune = self.toolkit / "bin" / "nvprune"
        nvprune.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nfor last; do :; done\ncp "$5" "$last"\n')
        nvprune.chmod(0o755)
        self.compile("cudart", "int cudaFree(void) { return 0; }", shared=True)
        self.compile("cublasLt", "int cublasLtMatmul(void) { return 3; } int cublasLtOther(void) { return 4; }")
        self.compile("cublas", "int cublasLtMatmul(void); int cudaFree(void); int cublasUsed(void) "
                     "{ return cublasLtMatmul() + cudaFree(); } int cublasUnused(void) { return 1; }")  # fmt: skip

    def compile(self, name: str, text: str, *, shared: bool = False) -> None:
        """A library of the toolkit, of one function to an object as the real ones are of many."""
        source, made = self.folder / f"{name}.c", self.toolkit / "lib64" / f"lib{name}"
        source.write_text(text)
        argv = [self.compiler, "-fPIC", "-ffunction-sections", str(source), "-o"]
        if shared:
            subprocess.run([*argv, f"{made}.so", "-shared"], check=True)
        else:
            subprocess.run([*argv, f"{source}.o", "-c"], check=True)
            subprocess.run(["ar", "rcs", f"{made}_static.a", f"{source}.o"], check=True)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        out = self.folder / "out" / "libsdrun-cublas.so.12"
        argv = ["sh", str(templates_dir() / "link-cublas.sh"), str(self.toolkit), str(out), *arguments]
        environment = {"PATH": os.environ["PATH"], "CXX": self.compiler, "LC_ALL": "C"}
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)

    def tool(self, *argv: str) -> str:
        """What binutils say of the result."""
        return subprocess.run(
            [*argv, str(self.folder / "out" / "libsdrun-cublas.so.12")], capture_output=True, text=True, check=True
        ).stdout


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


LIBRARIES = ("--libraries", "cublas", "cublasLt")


def test_the_link_holds_the_entry_points_alone(link: Link) -> None:
    done = link(*LIBRARIES, "--entry-points", "cublasUsed", "--keep", "90", "90a")
    assert done.returncode == 0, done.stderr
    defined = [line.split()[-1] for line in link.tool("nm", "-D", "--defined-only").splitlines()]
    assert defined == ["cublasUsed"]
    dynamic = link.tool("readelf", "-d")
    assert "Library soname: [libsdrun-cublas.so.12]" in dynamic
    assert "[libcudart.so]" in dynamic
    assert [line.split(" ")[:4] for line in (link.folder / "asked").read_text().splitlines()] == [
        ["-gencode", "arch=compute_90,code=sm_90", "-gencode", "arch=compute_90a,code=sm_90a"]
    ] * 2


def test_without_archs_nothing_is_pruned(link: Link) -> None:
    assert link(*LIBRARIES, "--entry-points", "cublasUsed").returncode == 0
    assert not (link.folder / "asked").exists()


@pytest.mark.parametrize("keep", [(), ("--keep", "90", "90a")])
def test_an_entry_point_that_is_not_there_ends_the_build(link: Link, keep: tuple[str, ...]) -> None:
    done = link(*LIBRARIES, "--entry-points", "cublasUsed", "cublasNew", *keep)
    assert done.returncode != 0
    assert "cublasNew" in done.stderr
    verdict = diagnose_build(done.stderr.encode())
    assert verdict is not None
    assert verdict.id == "entry-points-differ"


def test_a_function_that_the_list_lacks_ends_the_build_of_the_engine(link: Link) -> None:
    """cuBLAS has it, the pruned library does not: nothing of NVIDIA's is found in its place."""
    assert link(*LIBRARIES, "--entry-points", "cublasUsed").returncode == 0
    source = link.folder / "engine.c"
    source.write_text("int cublasUsed(void), cublasUnused(void); int main(void) { return cublasUsed() + cublasUnused(); }\n")
    library = link.folder / "out" / "libsdrun-cublas.so.12"
    argv = [
        link.compiler,
        str(source),
        str(library),
        str(link.toolkit / "lib64" / "libcudart.so"),
        "-o",
        str(link.folder / "x"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode != 0
    verdict = diagnose_build(done.stderr.encode())
    assert verdict is not None
    assert verdict.id == "entry-points-differ"


def test_a_symbol_that_nothing_has_ends_the_build(link: Link) -> None:
    link.compile("cublasLt", "int other(void); int cublasLtMatmul(void) { return other(); }")
    done = link(*LIBRARIES, "--entry-points", "cublasUsed")
    assert done.returncode != 0
    assert "undefined reference to `other'" in done.stderr


def test_what_the_toolkit_lacks_ends_the_build(link: Link) -> None:
    (link.toolkit / "lib64" / "libcublasLt_static.a").unlink()
    done = link(*LIBRARIES, "--entry-points", "cublasUsed")
    assert done.returncode == 1
    verdict = diagnose_build(done.stderr.encode())
    assert verdict is not None
    assert verdict.id == "static-libraries-missing"
    (link.toolkit / "lib64" / "libcudart.so").unlink()
    assert "there is no libcudart.so below" in link(*LIBRARIES, "--entry-points", "cublasUsed").stderr
    assert link("nonsense").returncode == 2


def test_engines_name_what_they_link() -> None:
    for engine in engines().values():
        assert engine.toolkit_libraries == ("cudart",)
        assert engine.cublas_libraries == ("cublas", "cublasLt")
        assert "cublasGemmEx" in engine.cublas_entry_points


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[cublas, cublasLt]", "[cublas, cublas]", "cublas_libraries: names something twice"),
        ("[cublas, cublasLt]", '["cublas; reboot"]', "is not the name of a library or a symbol"),
        ("[cudart]", "[]", "toolkit_libraries: is empty"),
    ],
)
def test_bad_names(refused_engines: Callable[[str, str, str], None], old: str, new: str, fault: str) -> None:
    refused_engines(old, new, fault)
