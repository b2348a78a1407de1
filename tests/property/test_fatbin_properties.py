"""No input crashes the inspector or keeps it forever; what was put into a file comes out of it."""

from __future__ import annotations

import io
import random
from collections import Counter

from fatbins.files import Piece, docker_archive, elf, engine, every_form, fatbin, layer, library, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.capability import Arch
from sdrun.fatbin import lz4, zstd
from sdrun.fatbin.carried import FileCode, NotInspectable, can_hold_code, read_code
from sdrun.fatbin.report import summed_up
from sdrun.fatbin.saved import read_archive
from sdrun.fatbin.source import MemorySource
from sdrun.fatbin.stream import ReadStream
from sdrun.fatbin.verdict import judge, reach, sentence

FORMS = every_form()
FACTS = load_cuda_facts()
pieces = st.builds(
    Piece,
    kind=st.sampled_from(["ptx", "cubin", "lto"]),
    sm=st.integers(10, 999),
    suffix=st.sampled_from(["", "a", "f"]),
    compression=st.sampled_from(["none", "lz4", "zstd"]),
    version=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    payload=st.binary(max_size=80),
)
fatbins = st.lists(st.lists(pieces, max_size=6), max_size=4)


def read(data: bytes) -> tuple[FileCode, ...]:
    """As `sdrun inspect` reads a file."""
    if can_hold_code(data[:8]):
        return (read_code(MemorySource(data), "x"),)
    return read_archive(ReadStream(io.BytesIO(data).read))


def counts(parts: list[list[Piece]]) -> Counter[tuple[str, Arch]]:
    return Counter((piece.kind, Arch(piece.sm, piece.suffix)) for part in parts for piece in part)  # type: ignore[arg-type]


@given(parts=fatbins, stripped=st.booleans())
def test_what_goes_in_comes_out(parts: list[list[Piece]], stripped: bool) -> None:
    whole = b"".join(fatbin(*part) for part in parts)
    code = read_code(MemorySource(engine(whole, stripped=stripped)), "x")
    assert Counter(code.counts) == counts(parts)
    assert code.faults == ()
    assert code.entries == sum(piece.kind != "lto" for part in parts for piece in part)
    strictest = {piece.compression for part in parts for piece in part if piece.kind != "lto"}
    expected = next((one for one in ("zstd", "lz4", "none") if one in strictest), None)
    assert code.compression == expected


@given(parts=st.lists(st.lists(pieces, min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_library_holds_what_its_members_hold(parts: list[list[Piece]]) -> None:
    code = read_code(MemorySource(library(*(elf({".nv_fatbin": fatbin(*part)}) for part in parts))), "x")
    assert Counter(code.counts) == counts(parts)


@given(names=st.lists(st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"]), max_size=8))
def test_layers_are_put_on_each_other_as_a_file_system_would(names: list[str]) -> None:
    """Each layer writes one file, or takes away one that is there: the files left are those of a plain set."""
    layers, there = [], set[str]()
    for name in names:
        if name in there:
            folder, _, last = name.rpartition("/")
            layers.append(layer({f"{folder}/.wh.{last}".lstrip("/"): b""}))
            there.remove(name)
        else:
            layers.append(layer({name: elf({".nv_fatbin": fatbin(Piece("cubin", 75))})}))
            there.add(name)
    assert {file.path for file in read(docker_archive(layers))} == there


@settings(max_examples=400)
@given(form=st.sampled_from(sorted(FORMS)), seed=st.integers(0, 2**32))
def test_injured_files_are_read_or_refused(form: str, seed: int) -> None:
    data = mutated(FORMS[form], random.Random(seed))
    try:
        files = read(data)
    except NotInspectable:
        return
    inspection = summed_up("x", files, FACTS)
    inspection.to_json()
    if inspection.files:
        reach(inspection, FACTS)
        for capability in FACTS.capabilities:
            assert sentence(judge(inspection, capability, FACTS), inspection, FACTS)


@given(
    data=st.binary(max_size=2000),
    head=st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"!<arch>\n", b"\x50\xed\x55\xba\1\0\x10\0"]),
)
def test_noise_is_read_or_refused(data: bytes, head: bytes) -> None:
    try:
        read(head + data)
    except NotInspectable:
        return


@given(data=st.binary(max_size=500), limit=st.integers(0, 5000))
def test_decompressors_end_on_noise(data: bytes, limit: int) -> None:
    for unpack, head in ((lz4.decompress, b""), (zstd.decompress, b"\x28\xb5\x2f\xfd\x00\x58")):
        try:
            assert len(unpack(head + data, limit)) <= limit + (1 << 18)
        except lz4.Corrupt:
            continue
