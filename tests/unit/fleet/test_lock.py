"""The lock file: it says what was decided, comes back as it was written, and keeps what people wrote into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fleets.samples import IMAGES, gfd, node, write
from resolving.samples import image, index

from sdrun.catalog.lockfile import parse_lock, read_lock
from sdrun.catalog.yamlcomments import GONE, keep_comments, split_comment
from sdrun.core.facts import CudaFacts
from sdrun.errors import BadConfiguration, UsageProblem
from sdrun.fleet.checking import confirm
from sdrun.fleet.locking import Locked, make_lock, write_whole
from sdrun.fleet.reading import read_nodes
from sdrun.render.fleet import render_lock

NODES = [
    node("a-1", gfd(), pool="l4"),
    node("a-2", gfd(driver="550.90.07", style="old"), pool="l4"),
    node("b", gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "0.0", "550.54.14", count=7, memory=9984), {"nvidia.com/gpu": 7}),
    node("c", {"cloud.google.com/gke-accelerator": "nvidia-l4"}, {"nvidia.com/gpu": 1}),
    node("two", gfd(), {"nvidia.com/gpu": 2}),
    node("v100", gfd("Tesla-V100-SXM2-16GB", "7.0", "580.65.06", cuda="13.0")),
]


def lock_it(folder: Path, facts: CudaFacts, nodes: list[dict[str, Any]], old: str | None = None, **more: Any) -> Locked:
    settings = {"allow_jit": True, "tolerate": ()} | more
    from fleets.samples import version

    live = read_nodes(write(folder, *nodes), version("550.54.14"))
    return make_lock(live, index(*IMAGES), facts, None if old is None else (folder / "lock.yaml", old), **settings)


def test_a_lock_comes_back_as_it_was_written(tmp_path: Path, facts: CudaFacts) -> None:
    made = lock_it(tmp_path, facts, NODES, tolerate=["dedicated", "dedicated"])
    path = tmp_path / "fleet.lock.yaml"
    write_whole(path, made.text)
    assert read_lock(path) == made.lock
    assert made.lock.tolerate == ("dedicated",)
    confirm(made.lock, facts)
    rows = {row.name: row for row in made.lock.classes}
    assert rows["cc89-r550"].selectors == ("gfd", "gfd-old", "class-label")
    assert (rows["cc89-r550"].label_nodes, rows["cc89-r550"].exclude) == (("c",), ("two",))
    assert rows["cc90-r550-mig-1g-10gb"].product_labels == ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb",)
    assert rows["cc90-r550-mig-1g-10gb"].exclude == ()  # the machine with two models says it is an L4
    assert [(row.node, row.id) for row in made.lock.refused] == [("two", "mixed-gpus"), ("v100", "no-code-for-capability")]


def test_a_jetson_and_a_machine_with_several_models(tmp_path: Path, facts: CudaFacts) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(
        "nodes:\n- {name: j, platform: linux/arm64, tegra: '36.4', gpus: [{product: Orin, capability: '8.7'}]}\n"
        "- {name: m, driver: '550.54.14', gpus: [{product: L4}, {product: A10}]}\n"
    )
    rows = (image("cu126-sm87", "87", platform="linux/arm64"), image("cu124-multi", "86 89"))
    rows = tuple(row | {"image": f"r.example/s@sha256:{number:064x}"} for number, row in enumerate(rows))
    made = make_lock(read_nodes(inventory), index(*rows), facts, None, allow_jit=True, tolerate=())
    assert parse_lock(tmp_path / "x", made.text) == made.lock
    assert [(row.name, row.tegra, row.label_nodes) for row in made.lock.classes] == [
        ("cc86-89-r550", None, ("m",)),
        ("cc87-arm64", "36.4", ("j",)),
    ]
    confirm(made.lock, facts)


def test_an_empty_lock(tmp_path: Path, facts: CudaFacts) -> None:
    made = lock_it(tmp_path, facts, [])
    assert parse_lock(tmp_path / "x", made.text) == made.lock
    assert "classes: []" in made.text


def test_the_text_depends_on_nothing_but_the_lock(tmp_path: Path, facts: CudaFacts) -> None:
    made = lock_it(tmp_path, facts, NODES)
    assert lock_it(tmp_path, facts, NODES[::-1]).text == made.text == render_lock(made.lock)


def test_names_comments_and_tolerations_are_kept(tmp_path: Path, facts: CudaFacts) -> None:
    first = lock_it(tmp_path, facts, NODES, tolerate=["dedicated"]).text
    edited = first.replace("    target: cu124-sm89\n", "    # asked the team\n    target: cu124-sm89 # pinned\n")
    edited = edited.replace("      - a-2\n", "      - a-2  # broken fan\n").replace(
        "refused:\n", "\n# not served\nrefused: # why\n"
    )
    edited += "# the end\n"
    moved = [node("a-0", gfd(driver="570.26", cuda="12.8")), *NODES[1:]]
    later = lock_it(tmp_path, facts, moved, edited)
    assert later.lock.tolerate == ("dedicated",)
    assert [row.name for row in later.lock.classes] == ["cc89-r550", "cc90-r550-mig-1g-10gb"]
    for line in ("    # asked the team\n    target: cu124-sm89  # pinned\n", "      - a-2  # broken fan\n"):
        assert line in later.text
    assert "\n# not served\nrefused:  # why\n" in later.text
    assert later.text.endswith("# the end\n")
    assert lock_it(tmp_path, facts, moved, later.text).text == later.text
    assert parse_lock(tmp_path / "x", later.text) == later.lock


def test_comments_of_what_is_gone_are_not_lost(tmp_path: Path, facts: CudaFacts) -> None:
    first = lock_it(tmp_path, facts, NODES).text
    edited = first.replace("      - a-2\n", "      # above it\n      - a-2  # behind it\n")
    later = lock_it(tmp_path, facts, [entry for entry in NODES if entry["metadata"]["name"] != "a-2"], edited).text
    assert later.endswith(f"{GONE}\n# above it\n# behind it\n")
    assert lock_it(tmp_path, facts, [entry for entry in NODES if entry["metadata"]["name"] != "a-2"], later).text == later


@pytest.mark.parametrize(
    ("line", "content", "comment"),
    [
        ("a: b # c", "a: b ", "# c"),
        ("# c ", "", "# c"),
        ('a: "x # y" # c', 'a: "x # y" ', "# c"),
        ("a: 'it''s # y'  #c", "a: 'it''s # y'  ", "#c"),
        ('a: "\\" # y" # c', 'a: "\\" # y" ', "# c"),
        ("a: b#c", "a: b#c", ""),
        ("a: don't # c", "a: don't ", "# c"),
        ("a: [x, 'y # z'] # c", "a: [x, 'y # z'] ", "# c"),
        ("a: b", "a: b", ""),
    ],
)
def test_where_a_comment_begins(line: str, content: str, comment: str) -> None:
    assert split_comment(line) == (content, comment)


def test_comments_within_flow_lists_have_no_line_of_their_own() -> None:
    old = "a: [x,\n  y] # inside\nb: 1 # of b\n"
    assert "b: 1  # of b\n" in keep_comments(old, "a: [x, y]\nb: 1\n")


FAULTS = [
    ("schema: ", "schema: other #", "schema: must be 'sdrun.fleet-lock/v1'"),
    ("    target: cu124-sm89\n", "    target: cu124-sm89\n    colour: red\n", "classes[0].colour: is not a key here"),
    ("code_path: sass-exact", "code_path: magic", "code_path: must be one of"),
    ("fatbin_compression: lz4", "fatbin_compression: zip", "fatbin_compression: must be one of"),
    ("selectors: [gfd", "selectors: [guess", "selectors: must be one of"),
    (f"sdrun@sha256:{'3' * 64}", "sdrun:latest", "image: must be pinned by its digest"),
    (f"sdrun@sha256:{'3' * 64}", "Sdrun@sha256:1", "image: must end with @sha256:"),
    ("name: cc90-r550-mig-1g-10gb", "name: cc89-r550", "classes: two of them have the same name"),
    ("engine: sdcpp-1", "engine: 5", "engine: must be a string"),
    ("refused:\n", "refused: 7\nmore:\n", "more: is not a key here"),
    ("classes:\n", "classes:\n  - 5\n", "classes[0]: must be an object"),
]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_what_is_wrong_in_a_lock_is_told_with_its_line(tmp_path: Path, facts: CudaFacts, old: str, new: str, said: str) -> None:
    text = lock_it(tmp_path, facts, NODES).text
    assert old in text
    with pytest.raises(BadConfiguration) as fault:
        parse_lock(tmp_path / "lock.yaml", text.replace(old, new, 1))
    assert fault.value.id == "bad-lock"
    assert said in fault.value.message
    assert fault.value.message.startswith(f"{tmp_path / 'lock.yaml'}:")


def test_a_lock_that_cannot_be_read(tmp_path: Path) -> None:
    for content, said in ((None, "cannot be read"), (b"\xff\xfe", "is not UTF-8"), (b"a: [", "is not YAML")):
        path = tmp_path / "lock.yaml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadConfiguration, match=said) as fault:
            read_lock(path)
        assert fault.value.id == "bad-lock"


def test_a_floor_changed_by_hand_is_found(tmp_path: Path, facts: CudaFacts) -> None:
    text = lock_it(tmp_path, facts, NODES).text.replace('min_driver: "525.60.13"', 'min_driver: "450.80.02"', 1)
    with pytest.raises(BadConfiguration, match="class cc89-r550 of the lock demands another driver than cu124-sm89 does"):
        confirm(parse_lock(tmp_path / "x", text), facts)


@pytest.mark.parametrize(
    ("reference", "said"), [("r.example/s:tag", "without a digest"), ("R.example/S@sha256:1", "no reference")]
)
def test_only_digests_are_pinned(tmp_path: Path, facts: CudaFacts, reference: str, said: str) -> None:
    live = read_nodes(write(tmp_path, node("a", gfd())))
    with pytest.raises(BadConfiguration, match=said) as fault:
        make_lock(live, index(IMAGES[2] | {"image": reference}), facts, None, allow_jit=True, tolerate=())
    assert fault.value.id == "bad-index"


def test_a_lock_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock.yaml"
    write_whole(path, "one\n")
    path.chmod(0o640)
    write_whole(path, "two\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two\n", 0o640)
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\udcff")
    assert path.read_text() == "two\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["lock.yaml"]
    with pytest.raises(UsageProblem, match="cannot be written") as fault:
        write_whole(path / "below", "x")
    assert fault.value.id == "output-not-writable"
    umask = os.umask(0o077)
    try:
        write_whole(tmp_path / "mine", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
