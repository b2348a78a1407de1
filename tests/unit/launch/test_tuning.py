"""What makes the engine faster on a GPU is told to it, unless somebody says otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from gpuhost import HOST as L4_HOST

from sdrun.catalog.families import families
from sdrun.catalog.selftest import pictures_dir, selftest
from sdrun.core.capability import ComputeCapability
from sdrun.core.fileset import FileSet
from sdrun.core.fit import FLASH
from sdrun.core.host import RuntimeFacts
from sdrun.core.model import ModelFiles
from sdrun.core.plan import CodePath
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import Prepared, prepare
from sdrun.launch.metadata import record_of
from sdrun.launch.repeat import repeat
from sdrun.launch.request import Request
from sdrun.launch.selftest.run import request_of
from sdrun.launch.tuning import Tuned, tuned
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import LocalImage

H100, L4 = ComputeCapability.parse("9.0"), ComputeCapability.parse("8.9")
MODEL = ModelFiles("flux", MappingProxyType({}), None)
REQUEST = Request("flux", "a fox")
GPU = {"index": 0, "uuid": "GPU-1", "name": "NVIDIA H100", "compute_capability": "9.0", "memory_mib": 80000, "mig": []}
HOST = {**L4_HOST, "gpus": [GPU]}


def of(family: str | None) -> FileSet:
    return FileSet(families().find(family) if family else None, {}, 0)


def given(
    request: Request = REQUEST,
    family: str | None = "flux",
    on: Iterable[ComputeCapability] = (H100,),
    path: CodePath = "sass-exact",
    model: ModelFiles = MODEL,
) -> tuple[str, ...]:
    return tuned(request, model, of(family), tuple(on), path).options


def test_flash_attention_on_an_h100() -> None:
    found = tuned(REQUEST, MODEL, of("flux"), (H100,), "sass-exact")
    assert found.options == (FLASH,)
    assert "9.0 (--no-tuned leaves it out)" in found.notes[0]


@pytest.mark.parametrize(
    "more",
    [
        {"request": replace(REQUEST, tuned=False)},
        {"request": replace(REQUEST, engine_args=("--fa",))},
        {"request": replace(REQUEST, engine_args=(FLASH,))},
        {"model": replace(MODEL, engine_args=(FLASH,))},
        {"family": None},
        {"family": "chroma"},
        {"family": "sd1"},
        {"on": ()},
        {"on": (H100, ComputeCapability.parse("5.0"))},
        {"path": "ptx-jit"},
        {"path": "sass-compatible"},
        {"path": "cpu"},
    ],
    ids=str,
)
def test_where_nothing_is_added(more: dict[str, object]) -> None:
    assert given(**more) == ()  # type: ignore[arg-type]


def test_nothing_to_say_is_nothing_said() -> None:
    assert tuned(replace(REQUEST, tuned=False), MODEL, of("flux"), (H100,), "sass-exact") == Tuned()


def test_the_self_test_draws_what_its_probes_say() -> None:
    suite = selftest()
    for probe in suite.probes:
        asked = request_of(suite, probe, Path("x"), pictures_dir())
        assert (asked.fit, asked.tuned) == (False, False)


@pytest.fixture
def h100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    return {"SDRUN_HOST_FACTS": str(tmp_path / "host.json")}


def prepared(request: Request, environ: dict[str, str], notes: list[str]) -> Prepared:
    facts = {"io.sdrun.target": "cu124-sm90", "io.sdrun.engine": "sdcpp-90e87bc", "io.sdrun.toolkit": "12.4"}
    facts |= {"io.sdrun.sass": "90", "io.sdrun.fatbin-compression": "none"}
    image = LocalImage(f"sha256:{'d' * 64}", ("sdrun:sdcpp-90e87bc-cu124-sm90",), (), facts, 9, "linux/amd64")
    runtime = FakeRuntime(local=[image], reported=RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",)))
    listener = Listener(detail=notes.append)
    made, _ = prepare(request, Wishes(), Fetching(), listener, lambda: runtime, environ)
    return made


def test_it_stands_in_the_command_and_in_the_record_before_the_users_own(h100: dict[str, str]) -> None:
    notes: list[str] = []
    request = Request("tiny", "a fox", width=64, height=64, engine_args=("--threads", "1"))
    made = prepared(request, h100, notes)
    assert made.spec(Path.cwd(), "fox.png", "run").command[-3:] == (FLASH, "--threads", "1")
    assert any(note.startswith(f"{FLASH}: ") for note in notes)
    record = record_of(made, 0, "NVIDIA H100")
    assert record.engine_args == (FLASH, "--threads", "1")
    again = repeat(record, is_here=lambda image: True).arguments
    assert "--no-tuned" in again
    assert again[-4:] == ("--", FLASH, "--threads", "1")


def test_the_switch(h100: dict[str, str]) -> None:
    notes: list[str] = []
    made = prepared(Request("tiny", "a fox", width=64, height=64, tuned=False), h100, notes)
    assert FLASH not in made.spec(Path.cwd(), "fox.png", "run").command
    assert not any(FLASH in note for note in notes)
