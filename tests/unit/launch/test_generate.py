"""The whole path over a runtime that plays the engine: what is asked of the container, what comes of each end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gpuhost import HOST
from PIL import Image

from sdrun.core.host import RuntimeFacts
from sdrun.core.labels import CPU_LEVEL, ENGINE
from sdrun.errors import Interrupted, RuntimeUnavailable, SdrunError, UsageProblem, VerificationFailed
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import Outcome, Prepared, command_line, generate, prepare
from sdrun.launch.localimages import local_index
from sdrun.launch.processor import missing_features
from sdrun.launch.request import Request
from sdrun.launch.runlog import KEPT, RunLog
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerSpec, Exit, LocalImage

ON_CPU = Wishes(gpu="none", allow_cpu=True)
DRAWN = b"[INFO ] main.cpp:490  - 1/1 images saved\n"
STARTED_GPU = b"ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes\n"
CDI = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=GPU-1",))


def no_gpu() -> dict[str, str]:
    """The environment of a host without a GPU, whatever machine this is."""
    return {"SDRUN_HOST_FACTS": str(Path.cwd().parent / "no-gpu.json")}


def png(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


GOOD_END = Exit(0, False, 1.5)


def engine(output: bytes = DRAWN, exit: Exit = GOOD_END, size: tuple[int, int] = (64, 64)) -> Callable[..., Script]:
    """An engine that writes the picture its command asks for."""

    def play(spec: ContainerSpec) -> Script:
        words = list(spec.command)
        name = words[words.index("--output") + 1]
        count = int(words[words.index("--batch-count") + 1]) if "--batch-count" in words else 1
        names = [name.replace("%d", str(number)) for number in range(1, count + 1)]
        files = {name: png(*size) for name in names} if exit.code == 0 else {}
        return Script((("stdout", output),), files, exit)

    return play


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "no-gpu.json").write_text(json.dumps({**HOST, "gpus": [], "driver_version": None, "cuda_driver": None}))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def request_() -> Request:
    return Request("tiny", "a fox", width=64, height=64, output=Path("fox.png"))


def prepared(
    request: Request, runtime: FakeRuntime, wishes: Wishes = ON_CPU, environ: dict[str, str] | None = None
) -> Prepared:
    return prepare(request, wishes, Fetching(), Listener(), lambda: runtime, environ or no_gpu())[0]


def drawn(request: Request, runtime: FakeRuntime, wishes: Wishes = ON_CPU, environ: dict[str, str] | None = None) -> Outcome:
    return generate(prepared(request, runtime, wishes, environ), runtime, Listener(), 0.0)


def failure(request: Request, runtime: FakeRuntime, **more: object) -> SdrunError:
    with pytest.raises(SdrunError) as caught:
        drawn(request, runtime, **more)  # type: ignore[arg-type]
    assert list(Path.cwd().iterdir()) == []
    assert runtime.containers == []
    return caught.value


def test_a_picture(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine()
    outcome = drawn(request_, fake_runtime)
    assert outcome.files == (Path.cwd() / "fox.png",)
    assert [path.name for path in Path.cwd().iterdir()] == ["fox.png"]
    document = outcome.to_json()
    assert document["schema"] == "sdrun.generate/v1"
    assert (document["seed"], document["target"], document["device"], document["code_path"]) == (42, "cpu", "cpu", "cpu")
    assert outcome.log is not None
    assert outcome.log.read_bytes() == DRAWN
    json.dumps(document)


def test_the_container_is_closed(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine()
    drawn(request_, fake_runtime)
    (spec,) = fake_runtime.specs
    assert spec.image == fake_runtime.local[0].id
    assert spec.network == "none"
    assert spec.gpu is None
    writable = [mount for mount in spec.mounts if not mount.read_only]
    assert [mount.target for mount in writable] == ["/out"]
    assert writable[0].source.parent == Path.cwd()
    assert writable[0].source.name.startswith(".sdrun-")


@pytest.mark.parametrize(
    "prompt", ["", "-n", "--steps", "a 'b' \"c\" $(d) `e` \\", "two\nlines\ttab", "🦊 狐 é", "%d %s", "a;b|c&"]
)
def test_any_prompt_arrives_unchanged(prompt: str, request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine()
    drawn(replace(request_, prompt=prompt, negative=prompt), fake_runtime)
    command = fake_runtime.specs[0].command
    assert command[command.index("--prompt") + 1] == prompt
    if prompt:
        assert command[command.index("--negative-prompt") + 1] == prompt


def test_options_reach_the_engine(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine()
    Path("first.png").write_bytes(png())
    Path("loras").mkdir()
    full = replace(request_, steps=3, seed=7, cfg_scale=2.5, guidance=3.0, sampler="euler_a", scheduler="karras", batch=2)
    full = replace(full, init=Path("first.png"), strength=0.5, engine_args=("--lora-model-dir", "loras", "--vae-tiling"))
    outcome = drawn(full, fake_runtime)
    command = " ".join(fake_runtime.specs[0].command)
    for part in (
        "--steps 3",
        "--seed 7",
        "--cfg-scale 2.5",
        "--guidance 3.0",
        "--sampling-method euler_a",
        "--scheduler karras",
    ):
        assert part in command
    for part in ("--strength 0.5", "--batch-count 2 --output-begin-idx 1", "--lora-model-dir /inputs/0/loras --vae-tiling"):
        assert part in command
    assert [path.name for path in outcome.files] == ["fox_1.png", "fox_2.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "x"),
        ("--mode", "convert"),
        ("--prompt", "x"),
        ("--mask", "nowhere.png"),
        ("--mask", "~no-such-user/x.png"),
        ("--preview", "vae"),
        ("--seed", "7"),
        ("--help",),
        ("--version",),
    ],
)
def test_engine_arguments_that_are_refused(arguments: tuple[str, ...], request_: Request, fake_runtime: FakeRuntime) -> None:
    with pytest.raises(UsageProblem):
        prepared(replace(request_, engine_args=arguments), fake_runtime)


@pytest.mark.parametrize(
    ("output", "exit", "id_", "code"),
    [
        (b"", Exit(137, False, 1.0), "killed", 9),
        (b"", Exit(137, True, 1.0), "out-of-memory", 10),
        (b"", Exit(134, False, 1.0), "engine-aborted", 9),
        (b"", Exit(139, False, 1.0), "segfault", 9),
        (b"", Exit(132, False, 1.0), "cpu-too-old", 9),
        (b"some new trouble\n", Exit(1, False, 1.0), "engine-failed", 9),
    ],
)
def test_each_end_has_its_verdict(
    output: bytes, exit: Exit, id_: str, code: int, request_: Request, fake_runtime: FakeRuntime
) -> None:
    fake_runtime.script = engine(output, exit)
    error = failure(request_, fake_runtime)
    assert (error.id, error.exit_code) == (id_, code)
    assert error.remedy
    if output:
        assert error.detail is not None
        assert "whole log: " in error.detail


def test_paths_in_a_verdict_are_the_users(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine(b"[WARN ] model.cpp:231  - file /models/llm/tiny-llm.gguf not found\n", Exit(1, False, 1.0))
    assert "/models/llm" not in failure(request_, fake_runtime).message


def test_a_run_that_wrote_nothing_failed(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = Script((("stdout", DRAWN),))
    assert failure(request_, fake_runtime).id == "output-missing"


def test_a_picture_of_another_size_failed(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine(size=(32, 32))
    assert failure(request_, fake_runtime).id == "output-size"


def test_a_size_the_engine_rounds_up_and_says_so_is_good(request_: Request, fake_runtime: FakeRuntime) -> None:
    line = b"[WARN ] stable-diffusion.cpp:2623 - align generation request up 64x64 to 128x64 (multiple=64)\n"
    fake_runtime.script = engine(line + DRAWN, size=(128, 64))
    assert drawn(request_, fake_runtime).files[0].exists()


def test_start_errors_pass_through(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = Script(start_error=RuntimeUnavailable("gone", "start it", id="runtime-down"))
    assert failure(request_, fake_runtime).id == "runtime-down"


def test_an_interrupt_leaves_nothing(request_: Request, fake_runtime: FakeRuntime) -> None:
    def interrupted(spec: ContainerSpec) -> Script:
        raise KeyboardInterrupt

    fake_runtime.script = interrupted
    error = failure(request_, fake_runtime)
    assert isinstance(error, Interrupted)
    assert error.exit_code == 130


@pytest.mark.parametrize("name", ["", " "])
def test_an_image_without_a_name(request_: Request, fake_runtime: FakeRuntime, name: str) -> None:
    with pytest.raises(UsageProblem, match="--image names no image"):
        prepare(request_, replace(ON_CPU, image=name), Fetching(), Listener(), lambda: fake_runtime, no_gpu())


def test_a_dry_run_starts_nothing_and_writes_to_the_place(request_: Request, fake_runtime: FakeRuntime) -> None:
    words, to_make = command_line(prepared(request_, fake_runtime), fake_runtime)
    assert to_make == ()
    assert words[:2] == ["docker", "run"]
    assert words[words.index("--output") + 1] == "/out/fox.png"
    assert f"type=bind,source={Path.cwd()},target=/out" in words
    assert fake_runtime.specs == []
    assert list(Path.cwd().iterdir()) == []


def cuda_image(**labels: str) -> LocalImage:
    facts = {"io.sdrun.target": "cu124-sm89", "io.sdrun.engine": "sdcpp-90e87bc", "io.sdrun.toolkit": "12.4"}
    facts |= {"io.sdrun.sass": "89", "io.sdrun.fatbin-compression": "none", **labels}
    return LocalImage(f"sha256:{'d' * 64}", ("sdrun:sdcpp-90e87bc-cu124-sm89",), (), facts, 9, "linux/amd64")


@pytest.fixture
def gpu_host(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    return {"SDRUN_HOST_FACTS": str(tmp_path / "host.json")}


def test_the_gpu_is_handed_over_and_has_to_be_named(
    request_: Request, fake_runtime: FakeRuntime, gpu_host: dict[str, str]
) -> None:
    fake_runtime.local.append(cuda_image())
    fake_runtime.reported = CDI
    fake_runtime.script = engine(STARTED_GPU + DRAWN)
    outcome = drawn(request_, fake_runtime, Wishes(), gpu_host)
    gpu = fake_runtime.specs[0].gpu
    assert gpu is not None
    assert (gpu.access, gpu.devices) == ("cdi", ("nvidia.com/gpu=GPU-1",))
    assert outcome.device == "CUDA0 NVIDIA L4"
    Path("fox.png").unlink()
    fake_runtime.script = engine(DRAWN)
    error = failure(request_, fake_runtime, wishes=Wishes(), environ=gpu_host)
    assert (error.id, error.exit_code) == ("ran-on-cpu", 9)


def test_no_image_at_all_is_told_as_that(request_: Request) -> None:
    assert failure(request_, FakeRuntime()).id == "image-missing"


def test_a_host_without_gpu_is_not_told_to_build(request_: Request, fake_runtime: FakeRuntime) -> None:
    assert failure(request_, fake_runtime, wishes=Wishes()).exit_code == 3


def test_an_image_by_name(request_: Request, fake_runtime: FakeRuntime) -> None:
    fake_runtime.script = engine()
    for name in ("sdrun:sdcpp-90e87bc-cpu", fake_runtime.local[0].id, "cpu"):
        drawn(request_, fake_runtime, replace(ON_CPU, image=name))
    assert {spec.image for spec in fake_runtime.specs} == {fake_runtime.local[0].id}
    Path("fox.png").unlink()
    assert failure(request_, fake_runtime, wishes=replace(ON_CPU, image="sha256:0")).id == "image-missing"
    fake_runtime.local[0] = replace(fake_runtime.local[0], labels={})
    with pytest.raises(VerificationFailed):
        prepared(request_, fake_runtime, replace(ON_CPU, image="sdrun:sdcpp-90e87bc-cpu"))


def test_an_image_of_an_index_is_pulled(request_: Request, fake_runtime: FakeRuntime, tmp_path: Path) -> None:
    reference = f"registry.example/sdrun@sha256:{'e' * 64}"
    row = {"target": "cpu", "image": reference, "platform": "linux/amd64", "toolkit": None, "sass": [], "ptx": []}
    index = {"schema": "sdrun.index/v1", "engine": "sdcpp-90e87bc", "images": [{**row, "fatbin_compression": None}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    wishes = replace(ON_CPU, index=str(tmp_path / "index.json"))
    assert failure(request_, fake_runtime, wishes=wishes).id == "download-failed"
    fake_runtime.remote = {reference: replace(fake_runtime.local[0], digests=(reference,))}
    fake_runtime.local.clear()
    fake_runtime.script = engine()
    drawn(request_, fake_runtime, wishes)
    assert len(fake_runtime.specs) == 1


def test_build_is_asked_for_what_is_missing(request_: Request, fake_runtime: FakeRuntime) -> None:
    image = fake_runtime.local.pop()
    asked: list[str] = []

    def build(wanted: object) -> None:
        asked.append(getattr(wanted, "target", ""))
        fake_runtime.local.append(image)

    made, _ = prepare(request_, ON_CPU, Fetching(build=build), Listener(), lambda: fake_runtime, no_gpu())
    assert (asked, made.decided.chosen.image) == (["cpu"], image.id)
    with pytest.raises(SdrunError) as caught:  # a GPU is missing here, which no build mends
        prepare(request_, Wishes(), Fetching(build=build), Listener(), lambda: fake_runtime, no_gpu())
    assert (caught.value.exit_code, asked) == (3, ["cpu"])


def test_local_images_that_are_no_candidates(fake_runtime: FakeRuntime) -> None:
    good = fake_runtime.local[0]
    fake_runtime.local[:] = [
        replace(good, id="sha256:1", tags=("sdrun:old",)),
        good,
        replace(good, id="sha256:2", tags=("sdrun-trial:sdcpp-90e87bc-cpu",)),
        replace(good, id="sha256:3", tags=()),
        replace(good, id="sha256:4", labels={"io.sdrun.target": "??"}),
        replace(good, id="sha256:5", tags=("sdrun:older",)),
    ]
    index, notes = local_index(fake_runtime)
    assert [row.image for row in index.images] == [good.id]
    assert len(notes) == 1
    named = Wishes(gpu="none", allow_cpu=True, image="cpu")  # by its target: the one that bears the target's own tag
    made, _ = prepare(Request("tiny", "a fox"), named, Fetching(), Listener(), lambda: fake_runtime, no_gpu())
    assert made.decided.chosen.image == good.id


@pytest.mark.parametrize("other", ["sdcpp-90e87bc-pruned", "sdcpp-90e87bc-full", "local"])
@pytest.mark.parametrize("first", [True, False])
def test_an_image_of_the_catalogues_engine_before_one_made_to_differ(
    fake_runtime: FakeRuntime, other: str, first: bool
) -> None:
    """Each has its own tag, so in what order the runtime lists them must not decide; the other is run where it is named."""
    good = fake_runtime.local[0]
    made = replace(good, id="sha256:other", tags=(f"sdrun:{other}-cpu",), labels={**good.labels, ENGINE: other})
    fake_runtime.local[:] = [made, good] if first else [good, made]
    assert [row.image for row in local_index(fake_runtime)[0].images] == [good.id]
    for name, image in (("cpu", good), (f"sdrun:{other}-cpu", made)):
        wishes = Wishes(gpu="none", allow_cpu=True, image=name)
        prepared_, _ = prepare(Request("tiny", "a fox"), wishes, Fetching(), Listener(), lambda: fake_runtime, no_gpu())
        assert prepared_.decided.chosen.image == image.id


def test_a_model_is_fetched_only_where_it_can_run(request_: Request, fake_runtime: FakeRuntime) -> None:
    """A model of the hub that is not here: the host is looked at first, and a dry run fetches nothing."""
    remote = replace(request_, model="sd-turbo:q8_0")
    assert failure(remote, fake_runtime, wishes=Wishes()).exit_code == 3
    dry = Fetching(pull=False)
    with pytest.raises(VerificationFailed) as caught:
        prepare(remote, ON_CPU, dry, Listener(), lambda: fake_runtime, no_gpu())
    assert caught.value.id == "model-not-fetched"
    with pytest.raises(UsageProblem) as unknown:
        prepare(replace(request_, model="sd-turbbo"), ON_CPU, dry, Listener(), FakeRuntime, no_gpu())
    assert "sd-turbo" in unknown.value.remedy


def test_a_file_the_engine_may_not_read(request_: Request, fake_runtime: FakeRuntime) -> None:
    """Also as root, who may read it himself."""
    Path("first.png").write_bytes(png())
    Path("first.png").chmod(0)
    with pytest.raises(UsageProblem) as caught:
        prepared(replace(request_, init=Path("first.png")), fake_runtime)
    assert caught.value.id in ("model-file-unreadable", "input-image-unreadable")


def test_a_processor_below_the_images_level(request_: Request, fake_runtime: FakeRuntime) -> None:
    assert missing_features("x86-64-v3", "flags\t\t: avx avx2 fma") != ()
    assert missing_features("x86-64-v9", "flags : fpu") == ()
    assert missing_features("x86-64-v3", "no such line") == ()
    fake_runtime.local[0] = replace(fake_runtime.local[0], labels={**fake_runtime.local[0].labels, CPU_LEVEL: "x86-64-v4"})
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii")
    fake_runtime.script = engine()
    if missing_features("x86-64-v4", flags):
        assert failure(request_, fake_runtime).id == "cpu-too-old"
        assert fake_runtime.specs == []
    else:
        drawn(request_, fake_runtime)


def test_logs_are_kept_and_forgotten(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        log = RunLog(tmp_path / "logs", f"run-{number:02}")
        log.write(b"words")
        log.close()
    kept = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert len(kept) == KEPT
    assert kept[-1].endswith(f"run-{KEPT + 4}.log")


def test_no_room_for_a_log_costs_the_log_only(
    request_: Request, fake_runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDRUN_STATE_DIR", "/proc/nowhere")
    fake_runtime.script = engine()
    assert drawn(request_, fake_runtime).log is None
