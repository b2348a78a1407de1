"""Target ids, selectors and labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.core import labels
from sdrun.core.capability import Arch
from sdrun.core.decode import Malformed
from sdrun.core.engine import Engine, PathSource
from sdrun.core.target import MAX_ALTERNATIVES, Base, Target, TargetId, expand_braces, select, to_json
from sdrun.core.version import CudaVersion, DriverVersion

IDS = ["cpu", "cu118-sm61", "cu124-sm89", "cu124-sm90a", "cu129-sm120f", "cu1210-sm75", "cu124-multi"]


def cuda(target: Target, id: str, sass: tuple[str, ...], ptx: tuple[str, ...] = ()) -> Target:
    return replace(
        target,
        id=TargetId.parse(id),
        sass=tuple(map(Arch.parse, sass)),
        ptx=tuple(map(Arch.parse, ptx)),
        toolchains=("nvidia", "debian"),
        fatbin_compression="lz4",
        min_driver=DriverVersion.parse("525.60.13"),
    )


@pytest.mark.parametrize("text", IDS)
def test_ids_round_trip(text: str) -> None:
    assert str(TargetId.parse(text)) == text


@given(
    st.builds(
        TargetId,
        st.builds(CudaVersion, st.integers(10, 99), st.integers(0, 99)),
        st.none() | st.builds(Arch, st.integers(50, 129), st.sampled_from(["", "a", "f"])),
    )
)
def test_every_id_round_trips(id: TargetId) -> None:
    assert TargetId.parse(str(id)) == id


@pytest.mark.parametrize(
    "text", ["", "CPU", "cu124", "cu124-89", "cu12.4-sm89", "cu124-sm8.9", "cu1204-sm89", "cu124-sm89\n", "cu9-sm60"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a target id"):
        TargetId.parse(text)


def test_contract_row(target: Target) -> None:
    row = cuda(target, "cu124-sm89", ("89",))
    assert to_json(row) == {
        "target": "cu124-sm89",
        "toolkit": "12.4",
        "sass": ["89"],
        "ptx": [],
        "platform": "linux/amd64",
        "min_driver": "525.60.13",
        "toolchains": ["nvidia", "debian"],
        "tag": "sdcpp-90e87bc-cu124-sm89",
    }


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("*", IDS),
        ("cpu", ["cpu"]),
        ("cu124-sm{89,90a}", ["cu124-sm89", "cu124-sm90a"]),
        ("cu1{18,24}-{sm61,multi}", ["cu118-sm61", "cu124-multi"]),
        ("*-sm120*", ["cu129-sm120f"]),
        ("nothing", []),
    ],
)
def test_selectors(target: Target, selector: str, found: list[str]) -> None:
    rows = [replace(target, id=TargetId.parse(id)) for id in IDS]
    assert [str(row.id) for row in select(selector, rows)] == found


@pytest.mark.parametrize("selector", ["cu124-sm{86,89", "a}b", "{a,b}" * 20])
def test_malformed_selectors(selector: str) -> None:
    with pytest.raises(ValueError, match=r"partner|more than"):
        expand_braces(selector)


def test_nested_braces() -> None:
    assert sorted(expand_braces("{a,b{c,d}}")) == ["a", "bc", "bd"]
    assert len(expand_braces("{a,b}" * 9)) == 512 < MAX_ALTERNATIVES


def test_labels_make_the_index_row(target: Target, engine: Engine, base: Base) -> None:
    row = cuda(target, "cu124-multi", ("86", "89"), ("89",))
    written = labels.image_labels(row, engine, base)
    image = labels.index_image_from_labels(written, "sha256:abc", "linux/amd64", 123)
    assert (image.target, image.tag, str(image.toolkit)) == ("cu124-multi", "sdcpp-90e87bc-cu124-multi", "12.4")
    assert [str(arch) for arch in (*image.sass, *image.ptx)] == ["86", "89", "89"]
    assert (image.fatbin_compression, image.image, image.size_bytes) == ("lz4", "sha256:abc", 123)


def test_cpu_labels_make_a_cpu_row(target: Target, engine: Engine, base: Base) -> None:
    image = labels.index_image_from_labels(labels.image_labels(target, engine, base), "x", "linux/amd64")
    assert image.is_cpu
    assert (image.sass, image.ptx, image.fatbin_compression) == ((), (), None)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({labels.TARGET: ""}, labels.TARGET),
        ({labels.TARGET: "sm89"}, labels.TARGET),
        ({labels.ENGINE: ""}, labels.ENGINE),
        ({labels.TOOLKIT: "12.4"}, labels.TOOLKIT),
        ({labels.SASS: "8.9"}, labels.SASS),
        ({labels.FATBIN_COMPRESSION: "zip"}, labels.FATBIN_COMPRESSION),
    ],
)
def test_labels_of_somebody_else_are_named(
    target: Target, engine: Engine, base: Base, change: dict[str, str], key: str
) -> None:
    written = {**labels.image_labels(target, engine, base), **change}
    with pytest.raises(Malformed) as fault:
        labels.index_image_from_labels(written, "x", "linux/amd64")
    assert fault.value.key == key


def test_the_path_of_a_local_engine_stays_private(target: Target, engine: Engine, base: Base) -> None:
    local = replace(engine, source=PathSource("/home/somebody/secret"), revision="")
    assert "secret" not in repr(labels.image_labels(target, local, base))
