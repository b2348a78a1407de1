"""Files with nodes: a cluster's JSON read node by node, and inventories."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fleets.samples import gfd, node, version, write

from sdrun.catalog import nodefile
from sdrun.catalog.gpus import load_products
from sdrun.errors import BadConfiguration
from sdrun.fleet.reading import read_nodes


def names(path: Path | str) -> list[str]:
    return [found.name for found in read_nodes(path)]


def test_a_list_in_every_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node(f"n{number}", gfd()) for number in range(40)]
    path = write(tmp_path, *nodes)
    wanted = [f"n{number}" for number in range(40)]
    assert names(path) == wanted
    for size in (1, 7, 4096):  # whatever is read at once
        monkeypatch.setattr(nodefile, "_CHUNK", size)
        if size > 1:
            assert names(path) == wanted
        else:
            small = write(tmp_path, *nodes[:2])
            assert names(small) == wanted[:2]
            path = write(tmp_path, *nodes)
    path.write_text("\ufeff" + json.dumps({"kind": "NodeList", "metadata": {}, "items": nodes}))
    assert names(path) == wanted
    path.write_text(json.dumps(nodes[0]))
    assert names(path) == ["n0"]
    path.write_text(json.dumps(nodes[0] | {"items": []}))
    assert names(path) == ["n0"]
    path.write_text(json.dumps({"kind": "List", "items": []}))
    assert names(path) == []


def test_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, node("a", gfd())).read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert names("-") == ["a"]
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"nodes: [{name: b, driver: '550.1', gpus: [{product: L4}]}]"))
    )
    assert names("-") == ["b"]


BROKEN = [
    (b"", "(document): is empty"),
    (b" \n ", "(document): is empty"),
    (b"\xff\xfe{", "is not UTF-8 text"),
    (b'{"kind": "Pod"}', "items: is missing: this is no list of nodes"),
    (b'{"kind": "Node"', "(document): is not JSON"),
    (b'{"kind": "List", "items": [', "items: ends in the middle"),
    (b'{"kind": "List", "items": [{"metadata": {"name": "a"}}, {"metad', "items[1]: is not JSON, or the file is not whole"),
    (
        b'{"kind": "List", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "a"}}]}',
        "items[1]: a stands there twice",
    ),
    (b'{"kind": "List", "items": [5]}', "items[0]: must be an object, not 5"),
    (b'{"kind": "List", "items": ' + b"[" * 100_000, "is nested too deeply"),
    (b'"items": [{', "(document)"),
    (b'{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "a"}}]}', "items[0].kind: must be Node, not 'Pod'"),
]


@pytest.mark.parametrize(("data", "said"), BROKEN)
def test_files_that_are_none(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "nodes.json"
    path.write_bytes(data)
    with pytest.raises(BadConfiguration) as fault:
        read_nodes(path)
    assert fault.value.id == "bad-nodes"
    assert said in fault.value.message or data.startswith(b'"items"')
    assert str(path) in fault.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="cannot be read: No such file"):
        read_nodes(tmp_path / "none.json")


def test_what_is_no_node_and_does_not_end_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodefile, "_MAX_NODE", 1000)
    monkeypatch.setattr(nodefile, "_MAX_INVENTORY", 1000)
    monkeypatch.setattr(nodefile, "_CHUNK", 100)
    path = tmp_path / "nodes.json"
    path.write_text('{"kind": "List", "items": [{"a": "' + "x" * 5000)
    with pytest.raises(BadConfiguration, match="is not JSON"):
        read_nodes(path)
    path.write_text("nodes:\n" + "# comment\n" * 1000)
    with pytest.raises(BadConfiguration, match="is larger than"):
        read_nodes(path)


INVENTORY = """
nodes:
  - names: [a, b]
    pool: render
    driver: "550.90.07"
    cuda: "12.4"
    gpus: [{product: NVIDIA L4, count: 2, memory_mib: 23034}]
  - name: c
    platform: linux/arm64
    gpus: [{product: my own, capability: "8.6"}]
"""


def test_an_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY)
    a, b, c = read_nodes(path, version("535.54.03"))
    assert (a.name, b.name, a.pool, a.kind is b.kind) == ("a", "b", "render", True)
    assert (str(a.kind.driver), str(a.kind.cuda), str(a.kind.gpus[0].capability), a.kind.memory_mib) == (
        "550.90.07",
        "12.4",
        "8.9",
        23034,
    )
    assert (c.kind.platform, str(c.kind.driver), c.kind.notes) == (
        "linux/arm64",
        "535.54.03",
        ("driver assumed to be 535.54.03",),
    )
    assert c.kind.memory_mib is None
    (*_, unknown) = read_nodes(path)
    assert unknown.kind.trouble is not None
    assert unknown.kind.trouble.id == "driver-unknown"


WRONG = [
    ("nodes:\n- {name: a, driver: '550.1', gpus: [{product: Next 9000}]}", "gpus[0].product: Next 9000 is no product"),
    ("nodes:\n- {name: a, driver: '550.1', gpus: []}", "gpus: is empty"),
    ("nodes:\n- {driver: '550.1', gpus: [{product: L4}]}", "name: is needed, or names, and not both"),
    ("nodes:\n- {name: a, names: [b], gpus: [{product: L4}]}", "name: is needed, or names, and not both"),
    ("nodes:\n- {name: a, gpus: [{product: L4}]}\n- {names: [a], gpus: [{product: L4}]}", "nodes: a stands there twice"),
    ("nodes:\n- {name: a, driver: 550.1, gpus: [{product: L4}]}", "driver: must be a string"),
    ("nodes:\n- {name: a, colour: red, gpus: [{product: L4}]}", "colour: is not a key here"),
    ("nodes:\n- {name: a, gpus: [{product: L4, count: 0}]}", "count: must be positive"),
    ("nodes:\n- {name: a, platform: x, gpus: [{product: L4}]}", "must be a platform"),
    ("nodes: []", "nodes: is empty"),
    ("nodes", "must be an object"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_an_inventory_with_faults(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    with pytest.raises(BadConfiguration) as fault:
        read_nodes(path)
    assert fault.value.id == "bad-nodes"
    assert said in fault.value.message


def test_the_table_of_products_holds_together(tmp_path: Path) -> None:
    products = load_products()
    assert str(products.capability("NVIDIA A100-SXM4-80GB")) == "8.0"
    assert str(products.capability("nvidia-l4")) == "None"  # a name is written as NVML writes it
    assert products.named_by({}, None) is None
    path = tmp_path / "gpus.yaml"
    path.write_text(
        "products:\n- {capability: '8.9', names: [L4]}\n- {capability: '8.0', names: [L4]}\n"
        "labels:\n- {label: x, values: {y: A1}}\ninstance_types:\n- {product: B1, types: ['a*']}\n"
    )
    with pytest.raises(BadConfiguration) as fault:
        load_products(path)
    for said in ("L4 stands there twice", "labels[0].values.y: A1 is none", "instance_types[0].product: B1 is none"):
        assert said in fault.value.message
