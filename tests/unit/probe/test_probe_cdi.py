"""CDI specs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdrun.core.decode import Malformed
from sdrun.core.version import DriverVersion
from sdrun.probe.cdi import device_names, library_versions, parse_spec, read_specs, stale_notes

RUNNING = DriverVersion.parse("580.159.04")
YAML = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21
- name: all
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04
  - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.159.04
  - hostPath: /usr/bin/nvidia-smi
"""
JSON = json.dumps(
    {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0"}, {"name": "1"}],
        "containerEdits": {"mounts": [{"hostPath": "/usr/lib64/libcuda.so.570.86.15"}]},
    }
)


def test_yaml_spec() -> None:
    spec = parse_spec(YAML, Path("nvidia.yaml"))
    assert spec.kind == "nvidia.com/gpu"
    assert spec.devices == (
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21",
        "nvidia.com/gpu=all",
    )
    assert spec.driver_version == RUNNING


def test_json_spec() -> None:
    spec = parse_spec(JSON, Path("nvidia.json"))
    assert (spec.devices, spec.driver_version) == (
        ("nvidia.com/gpu=0", "nvidia.com/gpu=1"),
        DriverVersion.parse("570.86.15"),
    )


def test_unquoted_device_names_stay_text() -> None:
    text = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: 0\n- name: 2024-99-99\n"
    assert parse_spec(text, Path("a.yaml")).devices == ("nvidia.com/gpu=0", "nvidia.com/gpu=2024-99-99")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "(document)"),
        ("a: [", "(document)"),
        ("- 1", "(document)"),
        ("kind: x", "cdiVersion"),
        ("cdiVersion: 0.5.0", "kind"),
        ("cdiVersion: 0.5.0\nkind: nvidia.com/gpu", "devices"),
        ("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: x", "devices"),
        ("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [1]", "devices[0]"),
        ("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{}]", "devices[0].name"),
    ],
)
def test_malformed_specs_name_the_key(text: str, key: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_spec(text, Path("a.yaml"))
    assert caught.value.key == key


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "5", '{"cdiVersion": 0.5}', "\0"])
def test_malformed_json(text: str) -> None:
    with pytest.raises(Malformed):
        parse_spec(text, Path("a.json"))


def test_malformed_spec_is_a_note(make_root) -> None:
    root = make_root({"etc/cdi/a.yaml": "a: [", "etc/cdi/b.yaml": YAML, "var/run/cdi/c.json": JSON, "etc/cdi/notes.txt": "x"})
    (root / "etc/cdi/d.yaml").mkdir()
    specs, notes = read_specs(root)
    assert [spec.path.name for spec in specs] == ["b.yaml", "c.json"]
    assert len(notes) == 2
    assert "a.yaml" in notes[0]
    assert "nvidia-ctk cdi generate" in notes[0]
    assert "d.yaml" in notes[1]
    assert device_names(specs)[0] == "nvidia.com/gpu=0"
    assert len(device_names(specs)) == 4


def test_no_specs(make_root) -> None:
    assert read_specs(make_root({})) == ((), ())


def test_stale_spec(make_root) -> None:
    root = make_root({"etc/cdi/nvidia.yaml": YAML, "var/run/cdi/nvidia.json": JSON})
    (note,) = stale_notes(root, RUNNING)
    assert "570.86.15" in note
    assert "580.159.04 is running" in note
    assert "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" in note


def test_other_spelling_of_the_same_driver_is_fresh(make_root) -> None:
    assert stale_notes(make_root({"etc/cdi/a.yaml": YAML}), DriverVersion.parse("580.159.4")) == ()


def test_stale_needs_a_running_driver_and_nvidias_kind(make_root) -> None:
    root = make_root({"etc/cdi/a.yaml": YAML.replace("nvidia.com", "vendor.example"), "etc/cdi/broken.yaml": "a: ["})
    (root / "etc/cdi/folder.json").mkdir()
    assert stale_notes(root, DriverVersion.parse("550.54.14")) == ()
    assert stale_notes(root, None) == ()


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("/usr/lib/wsl/lib/libcuda.so.1.1", []),
        ("/lib/libcuda.so.1", []),
        ("/lib/libnvidia-ml.so.535.183.01", ["535.183.01"]),
        ("/lib/libcuda.so.470.82", ["470.82"]),
        ("/lib/libcudart.so.12.4.127", []),
        ("/lib/libcuda.so.580.159.04.bak.1", []),
        ("- /lib/libcuda.so.580.159.04\n", ["580.159.04"]),
    ],
)
def test_library_versions(text: str, versions: list[str]) -> None:
    assert library_versions(text) == {DriverVersion.parse(version) for version in versions}
