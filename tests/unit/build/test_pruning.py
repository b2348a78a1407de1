"""The proof of images with pruned libraries: what is in the image against the same library unpruned; and `inspect --before`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fatbins.files import Content, Piece, docker_archive, elf, engine, fatbin, layer

from sdrun.build.pruning import check_pruned, served
from sdrun.build.rootfs import open_rootfs
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.cli.main import main
from sdrun.core.target import Target

FACTS = load_cuda_facts()
NAME = "libsdrun-cublas.so.12"
HOME = f"usr/lib/x86_64-linux-gnu/{NAME}"


def code(*archs: int) -> bytes:
    """A fatbin of machine code for these archs; the same for the same."""
    return fatbin(*(Piece("cubin", arch, payload=bytes([arch]) * 64) for arch in archs))


def library(*fatbins: bytes) -> bytes:
    return elf({".text": bytes(64), ".nv_fatbin": b"".join(fatbins)})


WHOLE = library(code(75, 80, 86, 89, 90), code(80), code(90))


def target(name: str) -> Target:
    (row,) = [row for row in targets().rows if row.name == name]
    return replace(row, pruned=True)


def faults(tmp_path: Path, image: dict[str, Content], unpruned: dict[str, Content], name: str = "cu124-sm89") -> list[str]:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([layer(image)]))
    with open_rootfs(archive) as rootfs:
        return check_pruned(rootfs, io.BytesIO(layer(unpruned)), target(name), FACTS)


def test_complete(tmp_path: Path) -> None:
    image: dict[str, Content] = {HOME: library(code(80, 86, 89), code(80)), "usr/libexec/sdrun/sd-cli": engine(code(89), "890")}
    assert faults(tmp_path, image, {NAME: WHOLE}) == []


def test_over_pruned(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, {HOME: library(code(89))}, {NAME: WHOLE})
    assert fault == (
        f"/{HOME} lacks machine code that a GPU of compute capability 8.9 could load and that the whole has: "
        "2 for sm_80, 1 for sm_86"
    )


def test_every_capability_that_the_image_serves_counts(tmp_path: Path) -> None:
    """The resolver gives 8.0 code to 8.6 and 8.9, too, where cuBLAS may choose kernels that it has for these alone."""
    found = faults(tmp_path, {HOME: library(code(80), code(80))}, {NAME: WHOLE}, "cu124-sm80")
    assert [fault.partition("capability ")[2][:3] for fault in found] == ["8.6", "8.9"]
    assert faults(tmp_path, {HOME: library(code(80, 86, 89), code(80))}, {NAME: WHOLE}, "cu124-sm80") == []


def test_served() -> None:
    assert list(map(str, served(target("cu124-sm80"), FACTS))) == ["8.0", "8.6", "8.9"]
    assert list(map(str, served(target("cu124-sm87-arm64"), FACTS)))[:1] == ["8.7"]
    assert served(target("cpu"), FACTS) == ()


@pytest.mark.parametrize(
    ("image", "unpruned", "says"),
    [
        ({"usr/lib/other.so": WHOLE}, {NAME: WHOLE}, f"{NAME} was pruned and is not in the image"),
        ({HOME: WHOLE}, {}, "there is no unpruned library to hold its own against"),
        ({HOME: WHOLE}, {"readme": b"hello", "libc.so": elf({".text": bytes(8)})}, "there is no unpruned library"),
        ({HOME: WHOLE}, {NAME: WHOLE[: len(WHOLE) // 2]}, "its libraries cannot be compared with the whole ones"),
        ({HOME: WHOLE[: len(WHOLE) // 2]}, {NAME: WHOLE}, "its libraries cannot be compared with the whole ones"),
    ],
)
def test_nothing_to_compare_is_a_fault(
    tmp_path: Path, image: dict[str, Content], unpruned: dict[str, Content], says: str
) -> None:
    (fault,) = faults(tmp_path, image, unpruned)
    assert fault.startswith(says)


def test_a_stream_that_breaks_off(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([layer({HOME: WHOLE})]))
    stream = io.BytesIO(layer({NAME: WHOLE})[:900])
    with open_rootfs(archive) as rootfs:
        (fault,) = check_pruned(rootfs, stream, target("cu124-sm89"), FACTS)
    assert "cannot be compared" in fault


# --- sdrun inspect FILE --before ORIGINAL --for CC


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdrun", "inspect", *arguments])
        ended = main()
        out, err = capsys.readouterr()
        return ended, out, err

    return call


def test_inspect_before(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    whole, pruned = tmp_path / "whole.so", tmp_path / "pruned.so"
    whole.write_bytes(WHOLE)
    pruned.write_bytes(library(code(80, 86, 89), code(80)))
    ended, out, _ = run(str(pruned), "--before", str(whole), "--for", "8.9")
    assert ended == 0
    assert out.startswith(f"{pruned} holds all that a GPU of compute capability 8.9 could load of {whole}: 2 for sm_80, ")
    ended, out, _ = run(str(pruned), "--before", str(whole), "--for", "8.9", "--json")
    document = json.loads(out)
    assert (ended, document["schema"], document["sass"]) == (0, "sdrun.inspect/v1", ["80", "86", "89"])
    assert document["compared"]["complete"] is True
    assert document["compared"]["kept"] == {"80": 2, "86": 1, "89": 1}
    assert document["compared"]["others_removed"] == 3


def test_inspect_before_of_an_over_pruned_library(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    whole, pruned = tmp_path / "whole.so", tmp_path / "pruned.so"
    whole.write_bytes(WHOLE)
    pruned.write_bytes(library(code(89)))
    ended, out, err = run(str(pruned), "--before", str(whole), "--for", "8.9")
    assert (ended, out) == (7, "")
    assert "2 for sm_80, 1 for sm_86" in err
    assert json.loads(run(str(pruned), "--before", str(whole), "--for", "8.9", "--json")[1])["id"] == "code-missing"


@pytest.mark.parametrize(
    ("arguments", "ended", "says"),
    [
        (("--before", "whole.so"), 2, "--before compares code for one capability"),
        (("--before", "nowhere.so", "--for", "8.9"), 8, "nowhere.so cannot be compared: No such file"),
        (("--before", "text", "--for", "8.9"), 8, "text cannot be compared: it is no ELF file"),
    ],
)
def test_inspect_before_of_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
    arguments: tuple[str, ...],
    ended: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("whole.so").write_bytes(WHOLE)
    Path("text").write_text("hello")
    code, _, err = run("whole.so", *arguments)
    assert code == ended
    assert says in err
