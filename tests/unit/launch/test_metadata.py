"""The record in a picture: written, read back, printed as a command; records of other programs; made-up ones."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sdrun.cli.show import describe
from sdrun.core.decode import Malformed
from sdrun.core.picture import Init, Record, UsedFile, UsedImage, UsedModel, from_json, parse
from sdrun.errors import BadConfiguration, UsageProblem
from sdrun.launch.metadata import foreign, read_record
from sdrun.launch.repeat import quoted, repeat

FILE = UsedFile("diffusion", "tiny.gguf", 704768, "0" * 64)
FULL = Record(
    prompt='a "fox"\nin the $snow — 🦊',
    negative="-n",
    seed=7,
    width=64,
    height=128,
    steps=2,
    cfg_scale=1.5,
    guidance=3.5,
    sampler="euler",
    scheduler="karras",
    strength=0.25,
    init=Init("first.png", "1" * 64),
    engine_args=("--vae-tiling",),
    model=UsedModel("tiny:q4_0", (FILE, UsedFile("llm", "llm.gguf", 5))),
    image=UsedImage("cpu", "sha256:" + "2" * 64, "sdcpp-90e87bc", "90e87bc846f1"),
    device="cpu",
    version="0.1.0",
)


def test_a_record_survives_its_text() -> None:
    assert parse(json.dumps(FULL.to_json())) == FULL
    assert parse(json.dumps(Record("x").to_json())) == Record("x")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"schema": "sdrun.picture/v9"}, "schema"),
        ({"prompt": 5}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"width": 1 << 40}, "width"),
        ({"cfg_scale": "1"}, "cfg_scale"),
        ({"cfg_scale": float("nan")}, "cfg_scale"),
        ({"engine_args": [1]}, "engine_args[0]"),
        ({"model": {"name": 1}}, "model.name"),
        ({"model": {"files": [{"role": "vae"}]}}, "model.files[0].name"),
        ({"image": {"target": "cpu"}}, "image.digest"),
        ({"init": {"name": "a"}}, "init.sha256"),
        ({"notes": {"a": 1}}, "notes.a"),
    ],
)
def test_a_malformed_record_names_its_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(Malformed) as caught:
        from_json({**FULL.to_json(), **change})
    assert caught.value.key == key


@given(
    st.one_of(
        st.text(),
        st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
            json.dumps
        ),
    )
)
def test_any_text_is_judged(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)
    described = describe(foreign(text), "parameters")
    assert all(char.isprintable() or char in "\n\t" for char in described)


def test_long_numbers_and_deep_nesting_are_refused() -> None:
    for text in ('{"schema":' + "9" * 100_000 + "}", "[" * 100_000):
        with pytest.raises(Malformed):
            parse(text)


def test_what_the_web_ui_writes() -> None:
    record = foreign(
        "a fox, Steps: in the snow\nsecond line\nNegative prompt: dark,\nblurred\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 123, Size: 512x768, Model hash: 6ce0161, Model: v1-5, Version: v1"
    )
    assert record == Record(
        prompt="a fox, Steps: in the snow\nsecond line",
        negative="dark,\nblurred",
        seed=123,
        width=512,
        height=768,
        steps=20,
        cfg_scale=7.5,
        sampler="Euler a",
        notes={"Model hash": "6ce0161", "Model": "v1-5", "Version": "v1"},
    )
    assert foreign("only a prompt") == Record("only a prompt")
    again = repeat(record, model="sd1.5", samplers={"euler", "euler_a"})
    assert "--sampler=euler_a" in again.arguments


def test_the_command_draws_the_same() -> None:
    again = repeat(replace(FULL, init=None, engine_args=()), samplers={"euler"}, is_here=lambda image: True)
    expected = [
        "sdrun",
        "generate",
        "--model=tiny:q4_0",
        f"--prompt={FULL.prompt}",
        "--negative-prompt=-n",
        "--width=64",
        "--height=128",
    ]
    expected += ["--steps=2", "--seed=7", "--cfg-scale=1.5", "--guidance=3.5", "--sampler=euler", "--scheduler=karras"]
    expected += ["--strength=0.25", "--gpu=none", "--allow-cpu", f"--image=sha256:{'2' * 64}"]
    assert shlex.split(again.line) == expected
    assert again.notes == ()


def test_what_differs_is_said() -> None:
    notes = " / ".join(repeat(FULL, samplers={"heun"}, output=Path("b.png")).notes)
    for text in ("'euler' is not one of this engine's", "first.png", "is not on this machine"):
        assert text in notes


def test_a_made_up_record_stays_in_this_folder() -> None:
    files = (UsedFile("diffusion", "/etc/shadow", 1), UsedFile("vae", "../../vae.gguf", 1))
    again = repeat(replace(FULL, model=UsedModel(None, files), init=Init("/root/x.png", "")))
    assert "--model=diffusion=shadow,vae=vae.gguf" in again.arguments
    assert "--init=x.png" in again.arguments
    for name in ("/etc/shadow", "../x.gguf", "a/../../b", "diffusion=/etc/shadow"):
        with pytest.raises(UsageProblem, match="no name that could be one"):
            repeat(replace(FULL, model=UsedModel(name)))
    with pytest.raises(UsageProblem, match="does not say which model"):
        repeat(Record("x"))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_quoted_words_are_printable(word: str) -> None:
    written = quoted(word)
    assert all(char.isprintable() or char in "\n\t" for char in written)
    if written.startswith("$'"):
        return
    assert shlex.split(written) == [word]


def test_a_shell_reads_escapes_back() -> None:
    word = "a\x1b[31m'\\\x9b\u202eb"
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.decode() == word


def test_pictures_without_a_record(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(BadConfiguration, match="nothing in it") as caught:
        read_record(path)
    assert caught.value.id == "no-metadata"
    info = PngImagePlugin.PngInfo()
    info.add_text("sdrun", "{}")
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(BadConfiguration, match="damaged: schema"):
        read_record(path)
    info.add_text("parameters", "a fox\nSteps: 3, Seed: 5")
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    assert read_record(path)[0].seed == 5
    for name in ("gone.png", "x\0y"):
        with pytest.raises(BadConfiguration, match="cannot be read"):
            read_record(tmp_path / name)
    (tmp_path / "text").write_text("no picture")
    with pytest.raises(BadConfiguration, match="no PNG"):
        read_record(tmp_path / "text")
