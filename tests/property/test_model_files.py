"""Whatever a model file's header says, judging it ends in an answer or in an error of ours, and soon."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
from fabricated import shapes
from fabricated.sparse import write
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrun.catalog.families import families
from sdrun.core.fileset import FileSet
from sdrun.core.needs import needs
from sdrun.errors import UsageProblem
from sdrun.models.family import file_set
from sdrun.models.headers import Damaged, read_header

NAMES = st.one_of(
    st.sampled_from([name for name, _ in shapes.flux(128, 1, 1)]),
    st.sampled_from([f"model.diffusion_model.{name}" for name, _ in shapes.flux(128, 1, 1)]),
    st.sampled_from([name for name, _ in shapes.sd1()]),
    st.sampled_from(
        [name for name, _ in (*shapes.vae(16, 32), *shapes.clip(layers=1), *shapes.t5(layers=1), *shapes.llm(layers=1))]
    ),
    st.text(max_size=20),
)
SIZES = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 4, 16, 32, 128, 768, 4096, 256384])
TENSORS = st.lists(st.tuples(NAMES, st.lists(SIZES, max_size=6), st.integers(0, 40)), min_size=1, max_size=12)


def gguf(tensors: list[tuple[str, list[int], int]]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0)
    for name, sizes, kind in tensors:
        data = name.encode("utf-8", "surrogatepass")
        head += struct.pack("<Q", len(data)) + data + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, 0)
    return head + bytes(4096)


def safetensors(tensors: list[tuple[str, list[int], int]]) -> bytes:
    kinds = ("F32", "F16", "F8_E4M3", "strange")
    entries = {name: {"dtype": kinds[kind % 4], "shape": sizes, "data_offsets": [0, 64]} for name, sizes, kind in tensors}
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


def judge(files: dict[str, bytes], folder: Path) -> None:
    headers = {}
    with contextlib.suppress(Damaged, UsageProblem):
        for role, data in files.items():
            path = folder / role
            path.write_bytes(data)
            headers[role] = read_header(path)
            assert headers[role].parameters >= 0
            assert isinstance(headers[role].quantisation, str)
        found: FileSet = file_set(headers, families(), "it", encodes=True)
        needs(found, 1024, 1024)


@settings(max_examples=150, deadline=None)
@given(TENSORS, TENSORS, st.sampled_from(["model", "diffusion"]), st.sampled_from(["vae", "clip_l", "t5xxl", "llm", "tae"]))
def test_any_header_is_judged(
    tmp_path_factory: pytest.TempPathFactory,
    one: list[tuple[str, list[int], int]],
    other: list[tuple[str, list[int], int]],
    role: str,
    part: str,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    judge({role: gguf(one), part: gguf(other)}, folder)
    judge({role: safetensors(one), part: safetensors(other)}, folder)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=8))
def test_a_mutated_model_is_judged(tmp_path_factory: pytest.TempPathFactory, place: int, patch: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = write(folder / "whole.gguf", shapes.flux(128, 1, 1)).read_bytes()
    vae = gguf([("decoder.conv_in.weight", [3, 3, 16, 4], 1), ("decoder.x.bias", [4], 0)])
    clip = gguf([("text_model.embeddings.token_embedding.weight", [768, 1], 1)])
    judge({"diffusion": whole[:place] + patch + whole[place + len(patch) :], "vae": vae, "clip_l": clip}, folder)
