"""Which form of an image a container runtime is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrun.core.host import RuntimeFacts
from sdrun.core.index import Index, IndexImage, from_json, to_json
from sdrun.core.layers import readable, reads_zstd, version_of

FROM = {"docker": (23, 0), "podman": (4, 3)}
ZSTD, GZIP = f"r.example/sdrun@sha256:{'a' * 64}", f"r.example/sdrun@sha256:{'b' * 64}"
BOTH = IndexImage("cpu", ZSTD, "linux/amd64", None, size_bytes=100, layers="zstd", gzip=GZIP, gzip_bytes=200)
ALONE = IndexImage("cu124-sm89", ZSTD, "linux/amd64", None, layers="zstd")
UNTOLD = IndexImage("cu124-sm90", ZSTD, "linux/amd64", None)
INDEX = Index("e", (BOTH, ALONE, UNTOLD))


@pytest.mark.parametrize(
    ("text", "version"), [("23.0", (23, 0)), ("20.10.24+dfsg1", (20, 10, 24)), ("26.1.5~ds1", (26, 1, 5)), ("28", (28,))]
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize("text", ["", "dev", "v23.0", "23.", "1..2"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="must be a version"):
        version_of(text)


@pytest.mark.parametrize(
    ("name", "version", "reads"),
    [
        ("docker", "20.10.24+dfsg1", False),
        ("docker", "22.06.0-beta.0", False),
        ("docker", "23.0.0", True),
        ("docker", "28.5.2", True),
        ("podman", "4.3.1", True),
        ("podman", "3.0.1", False),
        ("docker", "library-import", None),
        ("other", "1.0", None),
    ],
)
def test_who_reads_zstd(name: str, version: str, reads: bool | None) -> None:
    runtime = RuntimeFacts(name, version)
    assert reads_zstd(runtime, FROM) is reads
    given = readable(INDEX, runtime, FROM).images
    assert given[0].image == (ZSTD if reads else GZIP)
    assert given[1:] == (ALONE, UNTOLD)  # nothing else is published of these


def test_the_gzip_form_is_a_row_like_any_other() -> None:
    given = readable(INDEX, RuntimeFacts("docker", "20.10.24"), FROM).images[0]
    assert (given.image, given.size_bytes, given.layers, given.gzip, given.gzip_bytes) == (GZIP, 200, "gzip", None, None)
    assert (given.target, given.platform) == (BOTH.target, BOTH.platform)


def test_without_a_runtime_the_index_stays() -> None:
    assert readable(INDEX, None, FROM) is INDEX


def test_how_an_image_travels_survives_a_file_and_makes_no_rows_different() -> None:
    read = from_json(to_json(INDEX))
    assert [(row.layers, row.gzip, row.gzip_bytes) for row in read.images] == [
        ("zstd", GZIP, 200),
        ("zstd", None, None),
        (None, None, None),
    ]
    assert read == INDEX
    assert replace(BOTH, layers=None, gzip=None, gzip_bytes=None) == BOTH
