"""The cache of what the driver compiles, in real containers. There is no GPU: a stand-in names one and leaves what a driver
would, and the runtime is asked for everything but the GPU."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gpuhost import HOST
from PIL import Image

from sdrun.core.host import RuntimeFacts
from sdrun.launch import jitcache
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import Outcome, generate, prepare
from sdrun.launch.jitcache import KEPT, Entry, in_use, mounted
from sdrun.launch.request import Request
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit, LocalImage, Mount, OutputSink

pytestmark = pytest.mark.integration


class Pretending:
    """The real runtime, whose one image holds PTX and which has a GPU to hand over; in the container the stand-in runs."""

    def __init__(self, real: ContainerRuntime, image: LocalImage, standin: Path, picture: Path) -> None:
        labels = {**image.labels, "io.sdrun.target": "cu124-multi", "io.sdrun.toolkit": "12.4", "io.sdrun.ptx": "80"}
        labels |= {"io.sdrun.sass": "", "io.sdrun.fatbin-compression": "none"}
        self._real = real
        self._image = replace(image, labels=labels)
        self._mounts = (Mount(standin, "/standin"), Mount(picture, "/picture.png"))
        self.specs: list[ContainerSpec] = []
        self.during: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def facts(self) -> RuntimeFacts:
        """With a GPU by CDI."""
        return replace(self._real.facts(), cdi_devices=("nvidia.com/gpu=GPU-1",))

    def images(self, label: str | None = None) -> list[LocalImage]:
        """The one."""
        return [self._image]

    def image(self, reference: str) -> LocalImage | None:
        """The one, by its id."""
        return self._image if reference == self._image.id else None

    def run(self, spec: ContainerSpec, on_output: OutputSink) -> Exit:
        """As asked for, but for the GPU and the program."""
        self.specs.append(spec)

        def heard(stream: object, data: bytes) -> None:
            on_output(stream, data)  # type: ignore[arg-type]
            if b"Device 0" in data:
                self.during()

        mounts = (*spec.mounts, *self._mounts)
        return self._real.run(replace(spec, gpu=None, mounts=mounts, entrypoint=("/standin", "compile")), heard)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all entries, of this test alone."""
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache, of a user"))  # --mount reads CSV
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache, of a user" / "jit"


@pytest.fixture
def pretending(runtime: ContainerRuntime, engine_image: LocalImage, standin: Path, cache: Path, tmp_path: Path) -> Pretending:
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(buffer, "PNG")
    (tmp_path / "picture.png").write_bytes(buffer.getvalue())
    return Pretending(runtime, engine_image, standin, tmp_path / "picture.png")


def drawn(pretending: Pretending, output: str = "x.png") -> tuple[Outcome, str, str]:
    """The outcome, what was said to people, and the engine's own words."""
    said: list[str] = []
    words: list[bytes] = []
    listener = Listener(said.append, output=lambda stream, data: words.append(data))
    request = Request("tiny", "x", width=64, height=64, output=Path.cwd() / output, metadata=False)
    facts = {"SDRUN_HOST_FACTS": str(Path.cwd() / "host.json")}
    prepared, runtime = prepare(request, Wishes(), Fetching(), listener, lambda: pretending, facts)  # type: ignore[arg-type, return-value]
    return generate(prepared, runtime, listener, 0.0), "\n".join(said), b"".join(words).decode()


def test_the_second_run_finds_what_the_first_compiled(pretending: Pretending, cache: Path) -> None:
    _, said, words = drawn(pretending)
    assert "about 40 s longer" in said
    assert "/jit/code: written" in words
    (entry,) = cache.iterdir()
    info = (entry / "cache" / "code").stat()
    assert (info.st_uid, info.st_gid, info.st_size) == (os.geteuid(), os.getegid(), 4096)
    outcome, said, words = drawn(pretending)
    assert outcome.files[0].exists()
    assert "what the driver compiled of it in an earlier run is here" in said
    assert "code: found" in words
    assert [mount.target for mount in pretending.specs[0].mounts if not mount.read_only] == ["/out", "/jit"]
    assert pretending.specs[0].mounts[-1].source == entry / "cache"  # what other images left is out of sight


def test_two_at_once_share_it(pretending: Pretending, cache: Path) -> None:
    ends: list[str] = []
    runs = [threading.Thread(target=lambda name=name: ends.append(drawn(pretending, name)[2])) for name in ("a.png", "b.png")]
    for one in runs:
        one.start()
    for one in runs:
        one.join(120)
    assert len(ends) == 2
    assert Path("a.png").exists()
    assert Path("b.png").exists()
    assert len(list(cache.iterdir())) == 1


def test_the_entry_of_a_running_container_is_not_forgotten(pretending: Pretending, cache: Path) -> None:
    drawn(pretending)
    (entry,) = cache.iterdir()
    (entry / "cache" / "code").unlink()
    (entry / "cache" / "wait").touch()
    others = [Entry(cache / f"580.1-cc8.9-{number:064x}", {}) for number in range(KEPT + 2)]

    def during() -> None:
        os.utime(entry / "lock", (1, 1))  # the longest unused, by its date
        for other in others:
            with in_use(other, pytest.fail):
                pass
        (entry / "cache" / "wait").unlink()

    pretending.during = during
    _, _, words = drawn(pretending)
    assert "/jit/code: written" in words
    assert (entry / "cache" / "code").exists()
    assert len(list(cache.iterdir())) <= KEPT + 1


@pytest.fixture
def small_disk(cache: Path) -> Iterator[Callable[..., None]]:
    """A file system of its own below the cache; its argument are options of mount(8), given again they change it."""
    if os.geteuid() != 0:
        pytest.skip("root, to mount a file system")
    cache.mkdir(parents=True)

    def mount(options: str) -> None:
        argv = ["mount", "-t", "tmpfs", "-o", options, "sdrun-test", str(cache)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a mount of a file system here: {done.stderr.strip()}")

    yield mount
    subprocess.run(["umount", "-l", str(cache)], capture_output=True, check=False)


def test_a_small_disk_costs_the_cache_and_not_the_run(pretending: Pretending, small_disk: Callable[..., None]) -> None:
    small_disk("size=1m")
    outcome, said, words = drawn(pretending)
    assert outcome.files[0].exists()
    assert "are free in" in said
    assert "268 MB are wanted" in said
    assert "code: not kept" in words


def fill_up(file: Path) -> None:
    """Writes into the file until there is no room left."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with pytest.raises(OSError, match="No space left"):
        write_without_end(handle)
    os.close(handle)


def write_without_end(handle: int) -> None:
    while True:
        os.write(handle, bytes(4096))


def test_a_disk_that_fills_up(
    pretending: Pretending, small_disk: Callable[..., None], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jitcache, "LEAST_FREE", 1 << 20)
    small_disk("size=2m")

    def during() -> None:
        fill_up(cache / "ballast")
        (entry / "cache" / "wait").unlink()

    assert "/jit/code: written" in drawn(pretending)[2]
    (entry,) = cache.iterdir()
    (entry / "cache" / "code").unlink()
    (entry / "cache" / "wait").touch()
    pretending.during = during
    outcome, said, words = drawn(pretending)
    assert "/jit/code: No space left on device" in words
    assert "the driver kept nothing of what it compiled" in said
    assert outcome.files[0].exists()
    pretending.during = lambda: None
    outcome, said, words = drawn(pretending)
    assert "are free in" in said  # nothing is there and nothing can be added
    assert "code: not kept" in words
    (cache / "ballast").unlink()
    assert "/jit/code: " not in drawn(pretending)[2]  # the empty file that the full disk left is the driver's to see to
    (entry / "cache" / "code").unlink()
    assert "/jit/code: written" in drawn(pretending)[2]
    fill_up(cache / "ballast")
    outcome, said, words = drawn(pretending)
    assert "is here" in said  # what is there is used on a full disk as well
    assert "code: found" in words
    assert outcome.files[0].exists()


def test_a_disk_that_is_read_only(pretending: Pretending, small_disk: Callable[..., None]) -> None:
    small_disk("ro")
    outcome, said, words = drawn(pretending)
    assert outcome.files[0].exists()
    assert "Read-only file system" in said
    assert "code: not kept" in words


def test_the_callers_id_owns_what_is_compiled(
    runtime: ContainerRuntime, engine_image: LocalImage, standin: Path, cache: Path
) -> None:
    """Of a user who is not root, whose folder nobody else may look into."""
    if os.geteuid() != 0:
        pytest.skip("root, to be another user")
    for folder in (cache.parents[1], *cache.parents[1].parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    with in_use(Entry(cache / "x", {}), pytest.fail) as kept:
        assert kept is not None
        os.chown(kept.entry.cache, 1234, 2345)
        spec = ContainerSpec(
            engine_image.id, (), "1234:2345", (Mount(standin, "/standin"),), entrypoint=("/standin", "compile")
        )
        words: list[bytes] = []
        for _ in range(2):
            assert runtime.run(mounted(spec, kept), lambda stream, data: words.append(data)).code == 0
        assert b"/jit/code: written" in b"".join(words)
        assert b"code: found" in b"".join(words)
        info = (kept.entry.cache / "code").stat()
        assert (info.st_uid, info.st_gid) == (1234, 2345)
