"""Reading an image back: every way in which it can differ from what its target promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.build.proof import check_rootfs, prove
from sdrun.build.rootfs import open_rootfs
from sdrun.core.engine import Engine
from sdrun.core.target import Target
from sdrun.errors import VerificationFailed
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import Exit, LocalImage

Tree = dict[str, bytes | str]
Save = Callable[..., Path]
LIB = "usr/lib/x86_64-linux-gnu/"
LABELS = {"io.sdrun.target": "cpu"}


def image(**changes: object) -> LocalImage:
    values = {"id": "sha256:1", "tags": (), "digests": (), "labels": LABELS, "size_bytes": 1, "platform": "linux/amd64"}
    return LocalImage(**{**values, **changes})  # type: ignore[arg-type]


def faults(archive: Path, target: Target, engine: Engine) -> list[str]:
    with open_rootfs(archive) as rootfs:
        return check_rootfs(rootfs, target, engine)[1]


def test_a_proper_image(good_layer: Tree, save_image: Save, target: Target, engine: Engine) -> None:
    runtime = FakeRuntime(Script((("stdout", b"stable-diffusion.cpp version v1\n"),)), local=[image()])
    proof = prove(image(), save_image(good_layer), target, engine, LABELS, runtime)
    assert proof.libraries == ("ld-linux-x86-64.so.2", "libc.so.6", "libstdc++.so.6")
    assert proof.version == "stable-diffusion.cpp version v1"
    assert proof.unpacked_bytes == sum(len(content) for content in good_layer.values())
    assert 0 < proof.transfer_bytes < proof.unpacked_bytes + 10240
    assert [spec.command for spec in runtime.specs] == [("--version",), ("--help",), ("--help",)]
    assert all(spec.network == "none" and spec.user == "65532:65532" for spec in runtime.specs)


@pytest.mark.parametrize(
    ("path", "content", "fault"),
    [
        ("usr/bin/sd-server", None, "/usr/bin/sd-server is missing"),
        ("usr/bin/sd-cli", b"#!/bin/sh\n", "/usr/bin/sd-cli is not an ELF program"),
        (LIB + "libstdc++.so.6", None, "libstdc++.so.6 is needed and not in the image"),
        ("lib64/ld-linux-x86-64.so.2", None, "/lib64/ld-linux-x86-64.so.2 is needed and not in the image"),
        (LIB + "libm.so.6", b"\x7fELF", f"/{LIB}libm.so.6 is in the image and nothing needs it"),
        ("bin/sh", b"#!/usr/bin/python3\n", "/bin/sh is executable and is not one of the engine's programs"),
        ("usr/bin/busybox", b"\x7fELF", "/usr/bin/busybox is in the image and nothing needs it"),
        (LIB + "libc.so.6", b"\x7fELF\x02\x01", "/usr/bin/sd-cli or a library it needs cannot be read: the file is cut off"),
    ],
)
def test_faults(
    good_layer: Tree, save_image: Save, target: Target, engine: Engine, path: str, content: bytes | None, fault: str
) -> None:
    tree = {name: value for name, value in good_layer.items() if name != path}
    if content is not None:
        tree[path] = content
    assert fault in faults(save_image(tree), target, engine)


def test_set_user_id(good_layer: Tree, save_image: Save, target: Target, engine: Engine) -> None:
    archive = save_image(good_layer, modes={"usr/bin/sd-cli": 0o4755})
    assert faults(archive, target, engine) == ["/usr/bin/sd-cli is set-user-id or set-group-id"]


def test_libcuda_comes_from_the_host(
    good_layer: Tree, save_image: Save, target: Target, engine: Engine, make_elf: Callable[..., bytes]
) -> None:
    good_layer["usr/bin/sd-cli"] = make_elf(("libcuda.so.1", "libc.so.6"), "/lib64/ld-linux-x86-64.so.2")
    assert faults(save_image(good_layer), target, engine) == []


def test_links_and_runpath_lead_to_libraries(
    good_layer: Tree, save_image: Save, target: Target, engine: Engine, make_elf: Callable[..., bytes]
) -> None:
    good_layer["lib"] = "usr/lib"
    good_layer["usr/bin/sd-cli"] = make_elf(("libx.so.1", "libc.so.6"), "/lib64/ld-linux-x86-64.so.2", runpath="$ORIGIN/../opt")
    good_layer["usr/opt/libx.so.1"] = "libx.so.1.2"
    good_layer["usr/opt/libx.so.1.2"] = make_elf(("libc.so.6",), soname="libx.so.1")
    assert faults(save_image(good_layer), target, engine) == []


def test_a_loop_of_links_is_a_missing_library(good_layer: Tree, save_image: Save, target: Target, engine: Engine) -> None:
    good_layer[LIB + "libstdc++.so.6"] = "libstdc++.so.6"
    assert faults(save_image(good_layer), target, engine) == ["libstdc++.so.6 is needed and not in the image"]


def test_later_layers_remove_what_earlier_ones_had(good_layer: Tree, save_image: Save, target: Target, engine: Engine) -> None:
    below: Tree = {"bin/sh": b"\x7fELF", "opt/a": b"1", "opt/deep/b": b"2"}
    archive = save_image(below, {**good_layer, "bin/.wh.sh": b"", "opt/.wh..wh..opq": b""})
    with open_rootfs(archive) as rootfs:
        assert "bin/sh" not in rootfs.members
        assert not any(path.startswith("opt/") for path in rootfs.members)
    assert faults(archive, target, engine) == []


@pytest.mark.parametrize(
    ("changes", "user", "fault"),
    [
        ({}, "", "its user is unset, which is root"),
        ({}, "0:0", "its user is 0"),
        ({}, "root", "its user is root"),
        ({"platform": "linux/arm64"}, "65532", "its platform is linux/arm64, not linux/amd64"),
        ({"labels": {"io.sdrun.target": "cu124-sm89"}}, "65532", "label io.sdrun.target is 'cu124-sm89', not 'cpu'"),
    ],
)
def test_configuration(
    good_layer: Tree,
    save_image: Save,
    target: Target,
    engine: Engine,
    changes: dict[str, object],
    user: str,
    fault: str,
) -> None:
    found = image(**changes)
    with pytest.raises(VerificationFailed) as raised:
        prove(found, save_image(good_layer, user=user), target, engine, LABELS, FakeRuntime(local=[found]))
    assert (raised.value.id, raised.value.exit_code) == ("image-differs", 7)
    assert fault in (raised.value.detail or "")


def test_programs_that_do_not_start(good_layer: Tree, save_image: Save, target: Target, engine: Engine) -> None:
    runtime = FakeRuntime(Script((("stderr", b"Illegal instruction"),), exit=Exit(132, False, 0.1)), local=[image()])
    with pytest.raises(VerificationFailed) as raised:
        prove(image(), save_image(good_layer), target, engine, LABELS, runtime)
    assert "sd-cli --version ends with exit code 132: Illegal instruction" in (raised.value.detail or "")


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 10240])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(content)
    with pytest.raises(VerificationFailed, match="is not an image archive"), open_rootfs(archive):
        pass
