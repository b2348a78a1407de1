"""The probes' parsers take what a broken driver, an odd file or a hostile variable gives, and never raise."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.core.decode import Malformed
from sdrun.core.host import HostFacts, from_json, to_json
from sdrun.probe.answer import cuda_version, driver_version
from sdrun.probe.cdi import library_versions, parse_spec
from sdrun.probe.driver import parse_libcuda, parse_nvml, parse_rows
from sdrun.probe.libraries import cached_paths, version_of_file
from sdrun.probe.machine import parse_l4t, parse_memory
from sdrun.probe.mig import profile_in_name
from sdrun.probe.smi import judge, parse_csv
from sdrun.probe.sysfs import parse_information, parse_nvrm
from sdrun.probe.visible import visible_devices

# Text that comes near the real formats more often than chance would.
UUID = "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21"
WORDS = st.sampled_from(
    ("NVRM version:", " 580.159.04 ", "0, ", UUID, ", 9.0, ", "[N/A]", "\n", "# R36 (release)", ", REVISION: 4.3", ": ", "²")
)
MORE_WORDS = st.sampled_from(("MemTotal: 99 kB", "MIG 1g.5gb", "libcuda.so.", "/libcuda.so.580.1", "٣", "\0", "\x85", "- name"))
TEXT = st.one_of(st.text(), st.lists(st.one_of(WORDS, MORE_WORDS, st.text(max_size=5))).map("".join))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
FIELDS = ("uuid", "name", "capability", "memory", "mig_mode", "mig", "error", "instance", "gpu_slices", "memory_mb")
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
GOOD = st.builds(
    lambda n: {"uuid": f"GPU-{n:08x}-0000-4000-8000-00000000ab1e", "name": "X", "capability": [9, 0], "memory": n << 20},
    st.integers(0, 9),
)
ANSWER = st.fixed_dictionaries(
    {"gpus": st.one_of(JSON, st.lists(st.one_of(ROW, GOOD, JSON), max_size=6))},
    optional={"error": JSON, "driver_version": JSON, "cuda": JSON, "count": st.one_of(st.integers(), JSON)},
)


@given(TEXT)
def test_text_parsers_never_raise(text: str) -> None:
    parse_nvrm(text)
    parse_information(text)
    parse_l4t(text)
    parse_memory(text)
    parse_rows(text)
    profile_in_name(text)
    library_versions(text)
    version_of_file(text)
    driver_version(text)
    visible_devices({"CUDA_VISIBLE_DEVICES": text})


@given(st.binary())
def test_loader_cache_parser_never_raises(cache: bytes) -> None:
    cached_paths(cache)


@given(TEXT, st.booleans())
def test_csv_gives_facts_that_round_trip(text: str, with_capability: bool) -> None:
    rows, other = parse_csv(text, with_capability=with_capability)
    answer = judge(rows, other)
    host = HostFacts("linux/amd64", answer.driver_version, gpus=answer.gpus)
    assert from_json(json.loads(json.dumps(to_json(host)))) == host


@given(ANSWER)
def test_driver_answers_give_facts_that_round_trip(row: dict[str, object]) -> None:
    for answer in (parse_nvml(row), parse_libcuda(row)):
        host = HostFacts("linux/amd64", answer.driver_version, answer.cuda_driver, answer.gpus)
        assert from_json(json.loads(json.dumps(to_json(host)))) == host
        assert all(isinstance(note, str) and "\n" not in note for note in answer.notes)


@given(st.lists(st.one_of(ANSWER, JSON)))
def test_rows_never_raise(rows: list[object]) -> None:
    parse_rows("\n".join(json.dumps(row) for row in rows))


@given(JSON)
def test_cuda_version_never_raises(value: object) -> None:
    cuda_version(value)


@given(TEXT, st.sampled_from(["a.yaml", "a.json"]))
def test_specs_are_read_or_refused(text: str, name: str) -> None:
    with suppress(Malformed):
        assert parse_spec(text, Path(name)).kind is not None


@pytest.mark.parametrize(
    "text", ["?", "&a [*a]", "{[1]: 2}", "!!python/object:os.system x", "a: &x [*x, *x]", "%YAML 9.9\n---\n"]
)
def test_odd_yaml_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_spec(text, Path("a.yaml"))
