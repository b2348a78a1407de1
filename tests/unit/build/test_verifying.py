"""`sdrun verify`: what an image's labels promise is what it is measured by, and the catalogue's row with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrun.build import verifying
from sdrun.build.proof import Proof
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.cli.verify import describe, to_json
from sdrun.core.labels import FATBIN_COMPRESSION, MIN_DRIVER, SASS, TARGET, image_labels, target_from_labels
from sdrun.core.target import Target
from sdrun.errors import RuntimeUnavailable, VerificationFailed
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import LocalImage

NAME = "sdrun:sdcpp-90e87bc-cu124-sm89"
PROOF = Proof(("libc.so.6",), "", 200_000_000, 500_000_000, ({"path": "usr/libexec/sdrun/sd-cli", "sass": ["89"]},))


def labels(name: str = "cu124-sm89", **changes: str) -> dict[str, str]:
    row = next(row for row in targets().rows if row.name == name)
    return image_labels(row, engines()[row.engine], targets().bases[row.base]) | changes


def runtime(labels: dict[str, str]) -> FakeRuntime:
    return FakeRuntime(local=[LocalImage("sha256:1", (NAME,), (), labels, 1, "linux/amd64")])


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """The targets that images were measured by; the measuring itself is tested elsewhere."""
    seen: list[Target] = []

    def prove_image(image: LocalImage, target: Target, *rest: object) -> Proof:
        seen.append(target)
        return PROOF

    monkeypatch.setattr(verifying, "prove_image", prove_image)
    return seen


@pytest.mark.parametrize("name", ["cpu", "cu124-sm89", "cu130-multi", "cu130-sm121-arm64"])
def test_labels_say_the_row(name: str) -> None:
    row = next(row for row in targets().rows if row.name == name)
    found = target_from_labels(labels(name))
    assert found == replace(row, base="", toolchain=None, toolchains=())


def test_an_image_is_measured_by_its_labels(proven: list[Target]) -> None:
    target, proof = verifying.verify(NAME, runtime(labels()))
    assert proven == [target]
    document = to_json(NAME, target, proof)
    assert document["sass"] == ["89"]
    assert document["min_driver"] == "525.60.13"
    assert document["files"] == list(PROOF.code)
    assert describe(target, proof).splitlines()[0] == "  code        SASS 89, lz4"


@pytest.mark.parametrize("change", [{SASS: "86,89"}, {FATBIN_COMPRESSION: "zstd"}, {MIN_DRIVER: "450.80.02"}])
def test_labels_that_contradict_the_row(proven: list[Target], change: dict[str, str]) -> None:
    with pytest.raises(VerificationFailed, match="promises something else than the row of cu124-sm89") as raised:
        verifying.verify(NAME, runtime(labels(**change)))
    assert (raised.value.id, raised.value.exit_code, proven) == ("image-differs", 7, [])


@pytest.mark.parametrize("change", [{TARGET: ""}, {TARGET: "sm89"}, {SASS: "8.9"}, {MIN_DRIVER: "new"}])
def test_labels_that_are_not_ours(proven: list[Target], change: dict[str, str]) -> None:
    with pytest.raises(VerificationFailed, match="does not say what it holds") as raised:
        verifying.verify(NAME, runtime(labels(**change)))
    assert (raised.value.exit_code, proven) == (7, [])


def test_no_image() -> None:
    with pytest.raises(RuntimeUnavailable, match="has no image") as raised:
        verifying.verify(NAME, FakeRuntime())
    assert (raised.value.id, raised.value.exit_code) == ("image-missing", 6)
