"""How sources and files are written down, and the marks by which tensors are recognised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrun.core.engine import GitSource, PathSource, PypiSource
from sdrun.core.family import Marks
from sdrun.core.fileset import FilePart
from sdrun.core.guard import guard_header
from sdrun.core.header import TensorInfo
from sdrun.core.model import HubFile
from sdrun.core.needs import MIB, weights
from sdrun.core.target import Target, TargetId


def tensor(name: str, *dimensions: int, type: str = "f16") -> TensorInfo:
    return TensorInfo(name, type, dimensions, 2)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (PypiSource("stable-diffusion", "0.1", "0" * 64), "pypi:stable-diffusion==0.1"),
        (GitSource("https://example.org/x.git", "0123456789abcdef", {}), "git:https://example.org/x.git@0123456789ab"),
        (PathSource("/home/me/engine"), "path:/home/me/engine"),
    ],
)
def test_sources_have_a_text(source, text) -> None:
    assert str(source) == text


def test_files_on_a_hub_have_a_text_a_page_and_a_key() -> None:
    moving, pinned = HubFile("owner/repo", "a/b.gguf"), HubFile("owner/repo", "a/b.gguf", "0123")
    assert (str(moving), str(pinned)) == ("hf://owner/repo/a/b.gguf", "hf://owner/repo/a/b.gguf@0123")
    assert pinned.page == "/owner/repo"
    assert (moving.key, pinned.key) == ("owner/repo/a/b.gguf", "owner/repo/a/b.gguf@0123")


@pytest.mark.parametrize(
    ("marks", "holds"),
    [
        (Marks(), True),
        (Marks(has=(("double_blocks.", "joint_blocks."), ("txt_in",))), True),
        (Marks(has=(("joint_blocks.",),)), False),
        (Marks(lacks=("img_emb",)), True),
        (Marks(lacks=("img_emb", "txt_in")), False),
        (Marks(tensor=("txt_in.weight",), axis=0, size=4096), True),
        (Marks(tensor=("txt_in.weight",), axis=1, size=4096), False),
        (Marks(tensor=("in.weight",), axis=0, size=4096), False),
    ],
)
def test_marks(marks, holds) -> None:
    assert marks.hold([tensor("model.txt_in.weight", 4096, 3072), tensor("double_blocks.0.qkv", 8, 8)]) is holds


def test_tensors_that_the_engine_leaves_out_weigh_nothing() -> None:
    used = tensor("blk.0.attn_q.weight", MIB, 2)
    left_out = (tensor("output.weight", MIB, 2), tensor("model.lm_head.weight", MIB, 2), tensor("visual.blk.0.w", MIB, 2))
    assert weights(FilePart("llm", "llm", (used,))) == 4.0
    assert weights(FilePart("llm", "llm", (used, *left_out))) == 4.0
    assert weights(FilePart("t5", "t5", (left_out[2],))) == 4.0  # only a language model has an eye that is not used


def test_a_guard_is_for_gpu_code_and_for_names_that_c_can_hold(facts) -> None:
    target = Target(TargetId.parse("cu124-sm89"), "engine", "linux/amd64", "base", "x86-64-v3", sass=())
    assert '#define GUARD_TARGET "cu124-sm89"' in guard_header(target, ("sd-cli",), facts)
    with pytest.raises(ValueError, match="cpu has no GPU code"):
        guard_header(replace(target, id=TargetId()), ("sd-cli",), facts)
    for name in ('a"b', "a\\b", "a\nb", "\u00e9"):
        with pytest.raises(ValueError, match="cannot stand in a C string"):
            guard_header(target, (name,), facts)
