"""What the driver compiles, kept between runs: for which runs, under which key, what is said of it, and what is forgotten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from gpuhost import GPU, HOST

from sdrun.core import jit
from sdrun.core.capability import ComputeCapability
from sdrun.core.device import Device
from sdrun.core.host import HostFacts, RuntimeFacts
from sdrun.core.plan import Handover, Plan
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.errors import EngineFailed
from sdrun.launch import jitcache
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import command_line, generate, prepare
from sdrun.launch.jitcache import KEPT, LEAST_FREE, Entry, entry_of, in_use
from sdrun.launch.request import Request
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage

MIB = 1 << 20
USUAL, GOOD_END = Wishes(), Exit(0, False, 1.0)
STARTED = b"ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes\n"
DRAWN = b"[INFO ] main.cpp:490  - 1/1 images saved\n"
ESTIMATE = "takes about 40 s longer"
HERE = "what the driver compiled of it in an earlier run is here"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all entries; the folder for pictures is the working directory."""
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache" / "jit"


def image(ptx: str = "80", sass: str = "", digest: str = "d") -> LocalImage:
    labels = {"io.sdrun.target": "cu124-multi", "io.sdrun.engine": "sdcpp-90e87bc", "io.sdrun.toolkit": "12.4"}
    labels |= {"io.sdrun.sass": sass, "io.sdrun.ptx": ptx, "io.sdrun.fatbin-compression": "none"}
    return LocalImage(f"sha256:{digest * 64}", ("sdrun:sdcpp-90e87bc-cu124-multi",), (), labels, 9, "linux/amd64")


def png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


class Ran(NamedTuple):
    """One run: what was said, the container, and what went wrong."""

    said: str
    spec: ContainerSpec
    failed: EngineFailed | None

    @property
    def cache(self) -> Path | None:
        """The host's folder behind /jit."""
        return next((mount.source for mount in self.spec.mounts if mount.target == jit.FOLDER and not mount.read_only), None)


def run(
    local: LocalImage | None = None,
    compiled: bytes | None = b"code" * 1000,
    wishes: Wishes = USUAL,
    exit: Exit = GOOD_END,
    environ: dict[str, str] | None = None,
) -> Ran:
    """Draws one picture with an engine whose driver leaves `compiled`."""

    def play(spec: ContainerSpec) -> Script:
        files = {"/out/image.png": png()} if exit.code == 0 else {}
        if compiled is not None and "CUDA_CACHE_PATH" in spec.environment:
            files[f"{spec.environment['CUDA_CACHE_PATH']}/index"] = compiled
        return Script((("stdout", STARTED + DRAWN),), files, exit)

    runtime = FakeRuntime(play, [local or image()], reported=RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",)))
    said: list[str] = []
    listener = Listener(said.append)
    request = Request("tiny", "a fox", width=64, height=64)
    facts = environ or {"SDRUN_HOST_FACTS": str(Path.cwd().parent / "host.json")}
    prepared, _ = prepare(request, wishes, Fetching(), listener, lambda: runtime, facts)
    failed = None
    try:
        generate(prepared, runtime, listener, 0.0)
    except EngineFailed as error:
        failed = error
    assert (failed is None) == (exit.code == 0)
    return Ran("\n".join(said), runtime.specs[0], failed)


def test_the_first_run_is_told_the_estimate_and_the_second_that_the_code_is_here(root: Path) -> None:
    first = run()
    assert ESTIMATE in first.said
    assert HERE not in first.said
    assert first.cache is not None
    environment = first.spec.environment
    assert (environment["CUDA_CACHE_DISABLE"], environment["CUDA_CACHE_PATH"]) == ("0", "/jit")
    assert 0 < int(environment["CUDA_CACHE_MAXSIZE"]) <= 1 << 30
    assert (first.cache / "index").read_bytes() == b"code" * 1000
    second = run()
    assert HERE in second.said
    assert "0.00 MB" in second.said
    assert str(first.cache) in second.said
    assert ESTIMATE not in second.said
    assert second.cache == first.cache
    (entry,) = root.iterdir()
    record = json.loads((entry / "record.json").read_text())
    assert record["schema"] == "sdrun.jit/v1"
    assert (record["driver"], record["compute_capabilities"], record["target"]) == ("580.65.06", ["8.9"], "cu124-multi")
    assert (record["image"], record["bytes"]) == (f"sha256:{'d' * 64}", 4000)
    assert {path.name for path in entry.iterdir()} == {"cache", "lock", "record.json"}


def test_a_run_that_failed_promises_nothing() -> None:
    failed = run(exit=Exit(134, False, 1.0))
    assert failed.cache is not None
    assert any(failed.cache.iterdir())  # what it compiled stays, and is used
    again = run()
    assert ESTIMATE in again.said
    assert HERE not in again.said
    assert HERE in run().said


def test_a_driver_that_kept_nothing_is_told_and_promises_nothing() -> None:
    assert "the driver kept nothing of what it compiled" in run(compiled=None).said
    assert ESTIMATE in run().said


def test_what_was_removed_by_hand_is_not_promised() -> None:
    cache = run().cache
    assert cache is not None
    shutil.rmtree(cache)
    assert ESTIMATE in run().said


def test_native_code_keeps_no_cache(root: Path) -> None:
    native = run(image(ptx="80", sass="89"))
    assert native.cache is None
    assert native.spec.environment["CUDA_CACHE_DISABLE"] == "1"
    assert "CUDA_CACHE_PATH" not in native.spec.environment
    assert "CUDA_DISABLE_PTX_JIT" not in native.spec.environment
    assert not root.exists()


def test_no_jit_is_told_to_the_driver_as_well() -> None:
    environment = run(image(ptx="", sass="89"), wishes=Wishes(allow_jit=False)).spec.environment
    assert environment["CUDA_DISABLE_PTX_JIT"] == "1"
    assert environment["CUDA_CACHE_DISABLE"] == "1"


def test_another_image_driver_or_gpu_has_a_cache_of_its_own(root: Path, tmp_path: Path) -> None:
    places = {run().cache, run(image(digest="e")).cache}
    for change in ({"driver_version": "580.82.07"}, {"gpus": [{**GPU, "compute_capability": "9.0"}]}):
        (tmp_path / "other.json").write_text(json.dumps({**HOST, **change}))
        one = run(environ={"SDRUN_HOST_FACTS": str(tmp_path / "other.json")})
        assert HERE not in one.said
        places.add(one.cache)
    assert None not in places
    assert len(places) == len(list(root.iterdir())) == 4


def plan(path: str = "ptx-jit", *kinds: str) -> Plan:
    gpus = tuple(
        Device(f"GPU-{number}", "NVIDIA", ComputeCapability.parse(kind), 1, number, f"GPU-{number}")
        for number, kind in enumerate(kinds or ("8.9",))
    )
    return Plan("cu124-multi", "i", path, (), "cdi", handover=Handover(gpus, notes=("jit", "more"), jit_note="jit"))  # type: ignore[arg-type]


def test_the_key(tmp_path: Path) -> None:
    host = HostFacts("linux/amd64", DriverVersion.parse("580.159.04"), CudaVersion.parse("13.0"))
    digest = "a1" * 32
    name = "{}-cc{}-" + digest

    def folder(plan: Plan, host: HostFacts, image: str) -> Path | None:
        entry = entry_of(plan, host, image, tmp_path)
        return entry.folder if entry else None

    jit_root = tmp_path / "jit"
    assert folder(plan(), host, f"sha256:{digest}") == jit_root / name.format("580.159.04", "8.9")
    assert folder(plan(), host, f"registry.example:5000/sdrun@sha256:{digest}") == jit_root / name.format("580.159.04", "8.9")
    several = plan("ptx-jit", "12.0", "9.0", "12.0")
    assert folder(several, host, f"sha256:{digest}") == jit_root / name.format("580.159.04", "9.0_12.0")
    without = replace(host, driver_version=None)
    assert folder(plan(), without, f"sha256:{digest}") == jit_root / name.format("cuda13.0", "8.9")
    for path in ("sass-exact", "sass-compatible", "cpu"):
        assert folder(plan(path), host, f"sha256:{digest}") is None
    for nameless in ("sdrun:latest", f"sha256:{digest[:-1]}", f"sha256:{digest}/../..", ""):
        assert folder(plan(), host, nameless) is None


def test_only_the_estimate_gives_way_to_what_is_here(root: Path) -> None:
    entry = Entry(root / "x", {})
    assert jitcache.notes(plan(), None) == jitcache.notes(plan(), entry) == ("jit", "more")
    fill(entry)
    here, more = jitcache.notes(plan(), entry)
    assert HERE in here
    assert more == "more"


def fill(entry: Entry, size: int = 10, used: float | None = None) -> None:
    """An entry as a run that ended well leaves it; `used`: when, in seconds."""
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None
        (entry.cache / "0").mkdir(exist_ok=True)
        with (entry.cache / "0" / "code").open("wb") as file:
            file.truncate(size)
        kept.record(pytest.fail)
    if used is not None:
        os.utime(entry.folder / "lock", (used, used))


def entries(root: Path, count: int, size: int = 10) -> list[Entry]:
    """The longest unused first."""
    made = [Entry(root / f"580.1-cc8.9-{number:064x}", {}) for number in range(count)]
    for number, entry in enumerate(made):
        fill(entry, size, used=1000.0 + number)
    return made


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_the_longest_unused_are_forgotten(root: Path) -> None:
    old = entries(root, KEPT)
    new = Entry(root / f"580.1-cc8.9-{99:064x}", {})
    fill(new)
    assert names(root) == {entry.folder.name for entry in (*old[1:], new)}
    fill(old[1])  # used again, it is the youngest but one to come
    fill(Entry(root / f"580.1-cc8.9-{98:064x}", {}))
    assert old[1].folder.exists()
    assert not old[2].folder.exists()


def test_large_ones_are_forgotten_by_their_size(root: Path) -> None:
    old = entries(root, 3, 2047 * MIB)  # sparse
    fill(Entry(root / f"580.1-cc8.9-{99:064x}", {}))
    assert [entry.folder.exists() for entry in old] == [False, True, True]


def test_an_entry_in_use_is_never_forgotten(root: Path) -> None:
    old = entries(root, KEPT)
    with ExitStack() as uses:
        for entry in old:
            assert uses.enter_context(in_use(entry, pytest.fail)) is not None
        for entry in old:
            os.utime(entry.folder / "lock", (1, 1))
        more = [Entry(root / f"580.1-cc8.9-{number:064x}", {}) for number in range(50, 53)]
        for entry in more:
            fill(entry)
            assert all(one.folder.exists() for one in old)
    fill(more[-1])
    assert len(names(root)) == KEPT


def test_what_is_no_entry_is_left_alone(root: Path, tmp_path: Path) -> None:
    (root / "notes").mkdir(parents=True)
    (root / "580.1-cc8.9-x").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    link = root / f"580.1-cc8.9-{1 << 200:064x}"
    link.symlink_to(tmp_path / "elsewhere")
    (root / ".gone-123").mkdir()  # remains of a removal that was killed
    (root / ".gone-123" / "code").write_text("x")
    entries(root, KEPT + 3)
    left = {name for name in names(root) if not name.startswith("580.1-cc8.9-0")}
    assert left == {"notes", "580.1-cc8.9-x"}
    assert (tmp_path / "elsewhere").exists()


def test_an_entry_removed_while_it_is_waited_for_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(root / f"580.1-cc8.9-{1:064x}", {})
    fill(entry)
    real, waits = jitcache.fcntl.flock, [0]

    def flock(held: int, how: int) -> None:
        waits[0] += 1
        if waits[0] == 1:  # between the opening of the lock and its being had
            shutil.rmtree(entry.folder)
        real(held, how)

    monkeypatch.setattr(jitcache.fcntl, "flock", flock)
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None
        assert entry.cache.is_dir()
        assert waits == [2]
        assert entry.left == 0


def test_another_run_that_replaced_it_keeps_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(root / f"580.1-cc8.9-{1:064x}", {})
    fill(entry)
    real = jitcache.fcntl.flock

    def flock(held: int, how: int) -> None:
        shutil.rmtree(entry.folder)
        monkeypatch.setattr(jitcache.fcntl, "flock", real)
        fill(entry)
        real(held, how)

    monkeypatch.setattr(jitcache.fcntl, "flock", flock)
    assert not jitcache._removed(entry.folder)
    assert entry.left == 10


def unusable(entry: Entry) -> str:
    said: list[str] = []
    with in_use(entry, said.append) as kept:
        assert kept is None
    (text,) = said
    assert text.startswith("what the driver compiles is not kept, and the next run compiles it again: ")
    return text


def test_a_cache_that_cannot_be_had_is_told(root: Path) -> None:
    root.parent.mkdir()
    root.write_text("a file in its place")
    assert str(root) in unusable(Entry(root / "x", {}))
    assert "/proc/jit" in unusable(Entry(Path("/proc/jit/x"), {}))


def test_a_run_without_a_cache_goes_on(root: Path) -> None:
    root.parent.mkdir()
    root.write_text("a file in its place")
    done = run()
    assert done.cache is None
    assert "what the driver compiles is not kept" in done.said
    assert done.spec.environment["CUDA_CACHE_DISABLE"] == "1"


def test_a_cache_of_another_user_is_not_used(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root, to give a folder away")
    entry = Entry(root / "x", {})
    fill(entry)
    os.chown(entry.cache, 1234, 1234)  # the container's root has no privileges to overlook that
    assert f"(sudo rm -r {entry.folder})" in unusable(entry)
    os.chown(entry.cache, 0, 0)
    entry.cache.chmod(0o500)
    assert "not yours to write" in unusable(entry)
    entry.cache.chmod(0o700)
    os.chown(entry.folder, 1234, 1234)  # whoever owns the folder around it can make a link of it at any time
    assert "not yours to write" in unusable(entry)


def test_a_cache_that_leads_elsewhere_is_not_used(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    linked, inside = Entry(root / "x", {}), Entry(root / "y", {})
    root.mkdir(parents=True)
    linked.folder.symlink_to(elsewhere, target_is_directory=True)
    inside.folder.mkdir(mode=0o700)
    inside.cache.symlink_to(elsewhere, target_is_directory=True)
    for entry in (linked, inside):
        assert "not yours to write" in unusable(entry)


def usage(free: int) -> Callable[[Path], object]:
    return lambda path: shutil._ntuple_diskusage(1 << 40, (1 << 40) - free, free)  # type: ignore[attr-defined]


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(root / "x", {})
    monkeypatch.setattr(jitcache.shutil, "disk_usage", usage(LEAST_FREE - 1))
    assert "268 MB are wanted" in unusable(entry)
    monkeypatch.setattr(jitcache.shutil, "disk_usage", usage(LEAST_FREE))
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None
        assert kept.max_bytes == LEAST_FREE // 2
    monkeypatch.setattr(jitcache.shutil, "disk_usage", usage(1 << 40))
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None
        assert kept.max_bytes == jit.MAX_BYTES
    fill(entry)
    monkeypatch.setattr(jitcache.shutil, "disk_usage", usage(0))
    with in_use(entry, pytest.fail) as kept:  # what is there is of use on a full disk as well
        assert kept is not None


def test_a_record_that_cannot_be_written_costs_the_record(root: Path) -> None:
    entry = Entry(root / "x", {})
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None
        (entry.cache / "code").write_text("x")
        (entry.folder / "record.json").mkdir()
        kept.record(pytest.fail)
    assert entry.left == 0
    assert {path.name for path in entry.folder.iterdir()} == {"cache", "lock", "record.json"}


def test_a_printed_command_mounts_it_and_names_the_folder_to_make(root: Path) -> None:
    runtime = FakeRuntime(local=[image()], reported=RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",)))
    facts = {"SDRUN_HOST_FACTS": str(Path.cwd().parent / "host.json")}
    prepared, _ = prepare(Request("tiny", "x"), Wishes(), Fetching(), Listener(), lambda: runtime, facts)
    words, to_make = command_line(prepared, runtime)
    (cache,) = to_make
    assert f"type=bind,source={cache},target=/jit" in words
    assert "CUDA_CACHE_PATH=/jit" in words
    assert not root.exists()
    assert run().cache == cache
    assert command_line(prepared, runtime)[1] == ()


def test_an_entry_removed_while_it_is_made_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(root / "x", {})
    fill(entry)
    real = Path.is_dir

    def is_dir(self: Path) -> bool:  # what mkdir asks where something is there already
        if self == entry.folder and self.exists():
            shutil.rmtree(entry.folder)
        return real(self)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    with in_use(entry, pytest.fail) as kept:
        assert kept is not None


USE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from sdrun.launch.jitcache import KEPT, Entry, in_use
root, own = Path(sys.argv[1]), int(sys.argv[2])
for number in range(60):
    entry = Entry(root / f"580.1-cc8.9-{(own * 7 + number) % (KEPT + 6):064x}", {})
    with in_use(entry, sys.exit) as kept:
        mark = entry.cache / f"{own}-{number}"
        mark.write_text("x")
        kept.record(sys.exit)
        if not mark.exists():
            sys.exit(f"{mark} has gone")
"""


def test_processes_side_by_side_lose_nothing_in_use(root: Path) -> None:
    """Each uses more kinds of entry than are kept, so that they remove each other's all the time."""
    words = [sys.executable, "-c", USE_AGAIN_AND_AGAIN, str(root)]
    processes = [subprocess.Popen([*words, str(own)], stderr=subprocess.PIPE, text=True) for own in range(4)]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 4
    fill(Entry(root / f"580.1-cc8.9-{0:064x}", {}))
    assert len(names(root)) == KEPT
