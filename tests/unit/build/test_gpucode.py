"""The proof of GPU code: each way in which a finished image can hold something else than its row promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fatbins.files import Piece, cubin_head, docker_archive, elf, fatbin, layer
from fatbins.files import engine as engine_file

from sdrun.build.gpucode import check_code
from sdrun.build.inspecting import inspect_file
from sdrun.build.proof import start_guarded
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.core.engine import Engine
from sdrun.core.target import Target
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage

CLI, SERVER, CUBLAS = "usr/libexec/sdrun/sd-cli", "usr/libexec/sdrun/sd-server", "usr/lib/x86_64-linux-gnu/libcublas.so.12"


def row(name: str) -> Target:
    return next(row for row in targets().rows if row.name == name)


def lz4(data: bytes) -> bytes:
    """An lz4 block that holds `data` as literals."""
    long = len(data) - 15
    return bytes([0xF0]) + b"\xff" * (long // 255) + bytes([long % 255]) + data


def cubin(sm: int, suffix: str = "", toolkit: int = 124, compression: str = "lz4") -> Piece:
    head = cubin_head(toolkit)
    return Piece("cubin", sm, suffix, compression, payload=lz4(head) if compression == "lz4" else head)


def ptx(sm: int) -> Piece:
    return Piece("ptx", sm, compression="lz4", version=(8, 4), payload=lz4(b"." * 64))


GOOD = engine_file(fatbin(cubin(89)), "890")
LIBRARY = engine_file(fatbin(*(cubin(sm, compression="none") for sm in (80, 86, 90))))


def faults(tmp_path: Path, name: str, engine: Engine, files: dict[str, bytes]) -> list[str]:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([layer(dict(files))]))
    facts = load_cuda_facts()
    return check_code(inspect_file(archive, facts), row(name), engine, facts)


def test_exactly_the_target(tmp_path: Path, engine: Engine) -> None:
    assert faults(tmp_path, "cu124-sm89", engine, {CLI: GOOD, SERVER: GOOD, CUBLAS: LIBRARY}) == []


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        (SERVER, elf({".text": b"code"}), f"/{SERVER} holds no GPU code"),
        (CLI, engine_file(fatbin(cubin(52)), "520"), f"/{CLI} holds machine code for 52, and the target promises 89"),
        (CLI, engine_file(fatbin(cubin(86), cubin(89)), "860,890"), "machine code for 86, 89, and the target promises 89"),
        (CLI, engine_file(fatbin(cubin(89), ptx(89)), "890"), f"/{CLI} holds PTX for 89, and the target promises nothing"),
        (CLI, engine_file(fatbin(ptx(89)), "890"), f"/{CLI} holds machine code for nothing, and the target promises 89"),
        (CLI, engine_file(fatbin(cubin(89, compression="none")), "890"), f"/{CLI} is compressed with none"),
        (CLI, engine_file(fatbin(cubin(89, compression="zstd")), "890"), f"/{CLI} is compressed with zstd"),
        (CLI, engine_file(fatbin(cubin(89)), "860"), f"/{CLI} believes to be compiled for 86, not 89"),
        (CLI, engine_file(fatbin(cubin(89))), f"/{CLI} believes to be compiled for nothing, not 89"),
        (CLI, engine_file(fatbin(cubin(89, toolkit=118)), "890"), f"/{CLI} was made by CUDA 11.8, not 12.4"),
        (CUBLAS, engine_file(fatbin(cubin(90), cubin(75))), f"/{CUBLAS} has no code that runs on 89"),
    ],
)  # fmt: skip
def test_anything_else(tmp_path: Path, engine: Engine, file: str, content: bytes, fault: str) -> None:
    found = faults(tmp_path, "cu124-sm89", engine, {CLI: GOOD, SERVER: GOOD, CUBLAS: LIBRARY, file: content})
    assert any(fault in text for text in found), found


def test_several_archs_and_ptx(tmp_path: Path, engine: Engine) -> None:
    """A program for each arch, every one of them read: none may hold more or less than its own."""
    target = row("cu124-multi")
    files = {}
    for variant in target.variants:
        pieces = [*(cubin(arch.number) for arch in variant.sass), *(ptx(arch.number) for arch in variant.ptx)]
        believed = "".join(f"{arch.number}0" for arch in (*variant.sass, *variant.ptx))
        for name in ("sd-cli", "sd-server"):
            files[f"usr/libexec/sdrun/{variant.name}/{name}"] = engine_file(fatbin(*pieces), believed)
    assert len(files) == 2 * (len(target.sass) + len(target.ptx))
    assert faults(tmp_path, "cu124-multi", engine, files) == []
    first, last = sorted(files)[0], sorted(files)[-1]
    assert any(f"/{first} holds" in text for text in faults(tmp_path, "cu124-multi", engine, {**files, first: files[last]}))
    assert faults(tmp_path, "cu124-multi", engine, {name: files[name] for name in files if name != last}) == [
        f"/{last} holds no GPU code"
    ]


def test_the_engine_names_12xa_by_number(tmp_path: Path, engine: Engine) -> None:
    facts, target = load_cuda_facts(), replace(row("cu130-sm120"), fatbin_compression="lz4")
    code = engine_file(fatbin(cubin(120, "a", 130)), "1200")
    plain = engine_file(fatbin(cubin(120, "", 130)), "1200")
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([layer({CLI: code, SERVER: plain})]))
    found = check_code(inspect_file(archive, facts), target, engine, facts)
    assert found == [f"/{SERVER} holds machine code for 120, and the target promises 120a"]


def test_the_cpu_image_holds_none(tmp_path: Path, engine: Engine) -> None:
    assert faults(tmp_path, "cpu", engine, {"usr/bin/sd-cli": elf({".text": b"code"})}) == []
    assert faults(tmp_path, "cpu", engine, {"usr/bin/sd-cli": GOOD}) == ["/usr/bin/sd-cli holds GPU code"]


IMAGE = LocalImage("sha256:1", (), (), {}, 1, "linux/amd64")


def guarded(missing: str = "libcuda.so.1", guard: bool = True) -> FakeRuntime:
    """Answers as an image whose guard is there (or not) and whose programs lack `missing`."""

    def answer(spec: ContainerSpec) -> Script:
        if guard and spec.entrypoint[0].startswith("/usr/bin/"):
            return Script((("stderr", b"sdrun guard: no-gpu: no NVIDIA driver is in reach"),), exit=Exit(3, False, 0.0))
        if not missing:
            return Script((("stdout", b"engine v1\n"),))
        why = f"error while loading shared libraries: {missing}: cannot open shared object file"
        return Script((("stderr", why.encode()),), exit=Exit(127, False, 0.0))

    return FakeRuntime(answer, local=[IMAGE])


def test_only_libcuda_is_missing(engine: Engine) -> None:
    assert start_guarded(IMAGE, row("cu124-sm89"), engine, guarded()) == ("", [])
    assert start_guarded(IMAGE, row("cu124-multi"), engine, guarded(missing="")) == ("engine v1", [])


def test_more_is_missing_or_the_guard_is(engine: Engine) -> None:
    _, found = start_guarded(IMAGE, row("cu124-sm89"), engine, guarded(missing="libcublas.so.12"))
    assert len(found) == 2
    assert "sd-cli --version ends with exit code 127" in found[0]
    assert "libcublas.so.12" in found[0]
    several = row("cu124-multi")
    _, found = start_guarded(IMAGE, several, engine, guarded(missing="libcublas.so.12"))
    assert len(found) == 2 * len(several.variants)
    _, found = start_guarded(IMAGE, row("cu124-sm89"), engine, guarded(guard=False))
    assert "the guard of sd-cli ends with exit code 127, without a driver" in found[0]
