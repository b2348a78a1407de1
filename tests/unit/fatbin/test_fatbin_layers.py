"""Images in a tar: every format, layers one on another, whiteouts."""

from __future__ import annotations

import gzip
import io
import tempfile

import pytest
from fatbins.files import PACKINGS, Content, Piece, docker_archive, elf, engine, fatbin, fixture, layer, oci_archive

from sdrun.fatbin import layers
from sdrun.fatbin.carried import FileCode, NotInspectable
from sdrun.fatbin.saved import read_archive
from sdrun.fatbin.stream import FileStream, ReadStream

PROGRAM = engine(fixture("cu124-raw.fatbin"), "890,900")
LIBRARY = elf({".nv_fatbin": fixture("cu118-lz4.fatbin")})
OLD = elf({".nv_fatbin": fatbin(Piece("cubin", 50))})


def read(archive: bytes) -> tuple[FileCode, ...]:
    return read_archive(ReadStream(io.BytesIO(archive).read))


def paths(*contents: dict[str, Content]) -> list[str]:
    return [file.path for file in read(docker_archive([layer(content) for content in contents]))]


@pytest.mark.parametrize("manifest_last", [True, False])
def test_docker_save(manifest_last: bool) -> None:
    archive = docker_archive([layer({"usr/bin/sd": PROGRAM, "etc/x": b"text"})], manifest_last=manifest_last)
    (file,) = read(archive)
    assert (file.path, file.entries, [*map(str, file.sass)]) == ("usr/bin/sd", 3, ["89", "90a"])


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_an_oci_layout_with_its_attestation(packing: str) -> None:
    archive = oci_archive({"linux/amd64": [layer({"usr/bin/sd": PROGRAM})]}, packing=packing, attested=True)
    assert [file.path for file in read(archive)] == ["usr/bin/sd"]


def test_several_platforms_are_told_apart() -> None:
    archive = oci_archive({"linux/amd64": [layer({"sd": PROGRAM})], "linux/arm64": [layer({"sd": OLD})]})
    assert [(file.path, [*map(str, file.sass)]) for file in read(archive)] == [
        ("linux/amd64:sd", ["89", "90a"]),
        ("linux/arm64:sd", ["50"]),
    ]


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_a_packed_archive(packing: str) -> None:
    assert [file.path for file in read(PACKINGS[packing](docker_archive([layer({"sd": PROGRAM})])))] == ["sd"]


def test_a_layer_without_files() -> None:
    """BuildKit's WORKDIR on a folder that is there leaves one: a tar's two closing blocks and nothing before them."""
    assert [file.path for file in read(docker_archive([bytes(1024), layer({"sd": PROGRAM})]))] == ["sd"]
    assert [file.path for file in read(oci_archive({"linux/amd64": [layer({"sd": PROGRAM}), bytes(1024)]}))] == ["sd"]


def test_a_tar_that_is_no_image() -> None:
    assert [file.path for file in read(layer({"./usr/bin/sd": PROGRAM, "usr/x.json": b"{}"}))] == ["usr/bin/sd"]


def test_a_file_on_disk_is_read_where_it_stands() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(docker_archive([layer({"a": b"1" * 5000, "sd": PROGRAM}), layer({"lib.so": LIBRARY})]))
        file.seek(0)
        found = read_archive(FileStream(file))
    assert [(code.path, code.entries) for code in found] == [("lib.so", 3), ("sd", 3)]


def test_a_file_too_large_for_memory_is_put_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_IN_MEMORY", 100)
    assert [file.entries for file in read(docker_archive([layer({"sd": PROGRAM})]))] == [3]


def test_a_file_too_large_for_the_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_IN_MEMORY", 100)
    monkeypatch.setattr(layers, "_MAX_FILE", 1000)
    (file,) = read(docker_archive([layer({"sd": PROGRAM})]))
    assert file.faults


def test_a_later_layer_wins() -> None:
    (file,) = read(docker_archive([layer({"sd": OLD}), layer({"sd": PROGRAM})]))
    assert [*map(str, file.sass)] == ["89", "90a"]


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ({"opt/.wh.a.so": b""}, ["opt/b/c.so", "sd"]),
        ({".wh.opt": b""}, ["sd"]),
        ({"opt/.wh..wh..opq": b""}, ["sd"]),
        ({"opt/.wh..wh..opq": b"", "opt/a.so": LIBRARY}, ["opt/a.so", "sd"]),
        ({"opt/a.so": b"no code any more"}, ["opt/b/c.so", "sd"]),
        ({"opt/a.so": "b/c.so"}, ["opt/b/c.so", "sd"]),
        ({"opt/b": "elsewhere"}, ["opt/a.so", "sd"]),
        ({"opt": None, "opt/b": None, "opt/d": b""}, ["opt/a.so", "opt/b/c.so", "sd"]),
        ({"op/.wh.t": b"", "op": None}, ["opt/a.so", "opt/b/c.so", "sd"]),
        ({".wh..wh..opq": b""}, []),
    ],
)
def test_what_a_second_layer_hides(second: dict[str, Content], left: list[str]) -> None:
    assert paths({"sd": PROGRAM, "opt": None, "opt/a.so": LIBRARY, "opt/b/c.so": LIBRARY}, second) == left


def test_a_whiteout_hides_lower_layers_only() -> None:
    assert paths({"a.so": OLD}, {"a.so": LIBRARY, ".wh.a.so": b""}) == ["a.so"]
    assert paths({".wh.a.so": b""}, {"a.so": LIBRARY}) == ["a.so"]


def test_the_last_of_two_members_of_one_name_counts() -> None:
    twice = layer({"sd": OLD})[:-10240] + layer({"sd": b"text"})
    assert read(docker_archive([twice])) == ()


def test_hard_links_within_and_across_layers() -> None:
    first = layer({"a.so": LIBRARY}, {"b.so": "a.so"})
    second = layer({}, {"c.so": "a.so", "d.so": "nowhere"})
    assert [file.path for file in read(docker_archive([first, second]))] == ["a.so", "b.so", "c.so"]


def test_a_layer_that_docker_links_to_an_earlier_copy() -> None:
    one = layer({"a.so": LIBRARY})
    manifest = b'[{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"]}]'
    archive = layer({"1/layer.tar": one, "2/layer.tar": "../1/layer.tar", "manifest.json": manifest})
    assert [file.path for file in read(archive)] == ["a.so"]


def test_paths_of_every_length() -> None:
    deep = "/".join(f"folder{number:03d}" for number in range(40)) + "/sd"
    assert len(deep) > 300
    assert paths({deep: PROGRAM, "é" * 60 + "/x": LIBRARY}) == [deep, "é" * 60 + "/x"]


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"text" * 1000,
        bytes(2000),
        gzip.compress(b"text" * 1000, mtime=0),
        gzip.compress(docker_archive([layer({"sd": PROGRAM})]), mtime=0)[:-200],
        docker_archive([layer({"sd": PROGRAM})])[:-15000],
        docker_archive([b"no tar"]),
        docker_archive([b"\x28\xb5\x2f\xfd" + bytes(600)]),
        docker_archive([b""]),
        PACKINGS["zstd"](docker_archive([layer({"sd": PROGRAM})]))[:-200],
        docker_archive([PACKINGS["zstd"](layer({"sd": PROGRAM}))[:-30]]),
        docker_archive([gzip.compress(layer({"sd": PROGRAM}), mtime=0)[:-30]]),
        docker_archive([layer({"sd": PROGRAM})[:2000]]),
        layer({"manifest.json": b"[{]", "x": b""}),
        layer({"oci-layout": b"{}", "index.json": b'{"manifests": []}'}),
    ],
)
def test_a_damaged_or_foreign_archive_is_not_inspectable(archive: bytes) -> None:
    with pytest.raises(NotInspectable):
        read(archive)


@pytest.mark.parametrize("manifest", [b"{}", b"[1]", b'[{"Layers": 5}]', b"[" * 100_000, b'{"manifests": [{"digest": 7}]}'])
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_nonsense_documents_are_not_inspectable(name: str, manifest: bytes) -> None:
    with pytest.raises(NotInspectable):
        read(layer({name: manifest, "sd": PROGRAM}))


def test_an_index_that_contains_itself_ends() -> None:
    digest = "a" * 64
    inner = b'{"manifests": [{"digest": "sha256:' + digest.encode() + b'"}]}'
    with pytest.raises(NotInspectable):
        read(layer({f"blobs/sha256/{digest}": inner, "index.json": inner}))


def test_damage_within_a_file_of_a_layer_is_told() -> None:
    (file,) = read(docker_archive([layer({"a": b"", "sd": PROGRAM[:-200]})]))
    assert file.path == "sd"
    assert file.faults
