"""`sdrun inspect` from its arguments to what it prints, the container runtime played by a fake and by stand-in programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fatbins.files import FIXTURES, Piece, docker_archive, elf, engine, fatbin, fixture, layer

from sdrun.build import inspecting
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.cli.main import main
from sdrun.errors import BadConfiguration, RuntimeUnavailable
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

FACTS = load_cuda_facts()
ADA = engine(fixture("cu124-raw.fatbin"), "890,900")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls the program in this process; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdrun", "inspect", *arguments])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def written(tmp_path: Path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


# Programs that NVIDIA's compiler made of tests/fixtures/fatbins/scale.cu.
ONLY_52, DEFAULT = FIXTURES / "cu118-program-sm52", FIXTURES / "cu118-program"


def test_a_program_built_for_5_2_only_as_a_user_of_8_9_meets_it(run) -> None:
    """What this project began with: a compiler that nobody told for which GPU."""
    code, out, err = run(str(ONLY_52), "--for", "8.9")
    assert (code, out) == (4, "")
    assert err == (
        f"sdrun: {ONLY_52} cannot run on a GPU of compute capability 8.9: it holds machine code for 5.2 only and no PTX.\n"
        "  remedy: Use an image built for it: sdrun build cu124-sm89\n"
    )


def test_the_same_in_json(run) -> None:
    code, out, _ = run(str(ONLY_52), "--for", "8.9", "--json")
    assert code == 4
    error = json.loads(out)
    assert (error["id"], error["exit_code"]) == ("no-code-for-capability", 4)
    document = json.loads(run(str(ONLY_52), "--json")[1])
    assert document["files"][0] | {"path": ""} == {
        "path": "", "sass": ["52"], "ptx": [], "entries": 2, "fatbin_compression": "none", "engine_archs": ["52"],
    }  # fmt: skip
    assert (document["sass"], document["toolkit"], document["min_driver"]) == (["52"], "11.8", "450.80.02")


def test_the_same_within_an_image(run, tmp_path: Path) -> None:
    path = written(tmp_path, "image.tar", docker_archive([layer({"usr/bin/sd-cli": ONLY_52.read_bytes()})]))
    code, _, err = run(path, "--for", "8.9")
    assert (code, "usr/bin/sd-cli cannot run on a GPU of compute capability 8.9" in err) == (4, True)
    assert run(path, "--for", "5.2")[:1] == (0,)


def test_what_the_compiler_makes_of_itself_needs_the_drivers_compiler(run) -> None:
    code, out, _ = run(str(DEFAULT), "--for", "8.9")
    assert (code, out) == (
        0,
        f"{DEFAULT} runs on a GPU of compute capability 8.9 only after the driver has compiled its PTX 52: the first start "
        "is slow, and the driver must be 520.61.05 or newer, as new as CUDA 11.8.\n",
    )
    assert run(str(DEFAULT), "--for", "5.0")[0] == 4


def test_a_yes_is_one_sentence(run, tmp_path: Path) -> None:
    path = written(tmp_path, "sd-cli", ADA)
    assert run(path, "--for", "8.9") == (
        0,
        f"{path} runs natively on a GPU of compute capability 8.9 (sm_89), with driver 525.60.13 or newer.\n",
        "",
    )


def test_the_table(run, tmp_path: Path) -> None:
    path = written(tmp_path, "sd.tar", docker_archive([layer({"usr/bin/sd-cli": ADA})]))
    code, out, err = run(path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "FILE            SASS    PTX  ENTRIES  COMPRESSION  ENGINE BUILT FOR",
        "usr/bin/sd-cli  89 90a  89   3        lz4          89 90",
        "",
        "toolkit         12.4",
        "min driver      525.60.13",
        "runs natively   8.9 (RTX 4060, RTX 4070, RTX 4090), 9.0 (H100, H200, H20)",
        "runs by JIT     -",
        "does not run    5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.8 10.0 10.1 10.3 10.7 11.0 12.0 12.1",
    ]


def test_the_document(run, tmp_path: Path) -> None:
    path = written(tmp_path, "sd-cli", ADA)
    code, out, _ = run(path, "--json")
    document = json.loads(out)
    assert code == 0
    assert list(document) == ["schema", "files", "sass", "ptx", "toolkit", "min_driver"]
    assert document["files"][0]["path"] == path


def test_no_cuda_code_is_no_error(run, tmp_path: Path) -> None:
    path = written(tmp_path, "ls", elf({".text": b"x"}))
    assert run(path) == (0, f"{path} holds no CUDA code.\n", "")
    code, out, _ = run(path, "--json")
    assert (code, json.loads(out)["sass"]) == (0, [])


def test_link_time_code_is_no_code_that_runs(run, tmp_path: Path) -> None:
    path = written(tmp_path, "x.o", elf({".nv_fatbin": fatbin(Piece("lto", 89, compression="zstd"))}))
    assert run(path)[1] == f"{path} holds link-time code for 89 and no CUDA code that runs.\n"
    assert json.loads(run(path, "--json")[1])["files"][0]["fatbin_compression"] is None
    code, _, err = run(path, "--for", "8.9")
    assert code == 4
    assert "link-time code only" in err


@pytest.mark.parametrize("make", [lambda: elf({".text": b"x"}), lambda: docker_archive([layer({"x": b"y"})])])
def test_no_cuda_code_runs_on_no_gpu(run, tmp_path: Path, make) -> None:
    code, _, err = run(written(tmp_path, "x", make()), "--for", "8.9")
    assert code == 4
    assert "no CUDA code" in err


@pytest.mark.parametrize("data", [b"", b"plain text\n", ADA[:-300], ADA[:70], b"\x28\xb5\x2f\xfd" + bytes(600), bytes(10_000)])
def test_what_cannot_be_inspected(run, tmp_path: Path, data: bytes) -> None:
    code, out, err = run(written(tmp_path, "x", data))
    assert (code, out) == (8, "")
    assert "remedy" in err
    assert "Traceback" not in err


def test_folders_devices_and_nothing(run, tmp_path: Path) -> None:
    for subject in (str(tmp_path), "/dev/null", str(tmp_path / "missing"), "", "No/Such", "-"):
        code, out, _ = run(subject, "--json")
        assert (code, json.loads(out)["id"]) == (8, "not-inspectable"), subject


def test_an_unreadable_file(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "x", ADA)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    code, _, err = run(path)
    assert code == 8
    assert "Permission denied" in err


@pytest.mark.parametrize("text", ["8", "89", "8.9.1", "sm_89", "x"])
def test_a_malformed_capability_is_a_usage_error(run, tmp_path: Path, text: str) -> None:
    code, _, err = run(written(tmp_path, "x", ADA), "--for", text)
    assert code == 2
    assert "8.9" in err


IMAGE = LocalImage("sha256:" + "1" * 64, ("sdrun:x",), (), {}, 1, "linux/amd64")


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> ContainerRuntime:
    """A `docker` that does what the script says, first on PATH, and a runtime that has the image."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return FakeRuntime(local=[IMAGE])


def test_a_local_image_is_read_from_its_save_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = written(tmp_path, "image.tar", docker_archive([layer({"usr/bin/sd-cli": ADA, "pad": bytes(3 << 20)})]))
    runtime = stand_in(tmp_path, monkeypatch, f'test "$1 $2" = "save {IMAGE.id}" && cat {archive}')
    inspection = inspecting.inspect("sdrun:x", FACTS, lambda: runtime)
    assert [*map(str, inspection.sass)] == ["89", "90a"]
    assert inspection.subject == "sdrun:x"


@pytest.mark.parametrize("before", ["", "head -c 100000"])
def test_a_runtime_that_breaks_off_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    archive = written(tmp_path, "image.tar", docker_archive([layer({"pad": bytes(3 << 20)})]))
    script = f"{before} {archive}; echo 'Error response from daemon: broken' >&2; exit 1"
    runtime = stand_in(tmp_path, monkeypatch, script if before else "echo 'Error response from daemon: broken' >&2; exit 1")
    with pytest.raises(RuntimeUnavailable, match="broken"):
        inspecting.inspect("sdrun:x", FACTS, lambda: runtime)


def test_a_stream_that_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = stand_in(tmp_path, monkeypatch, "head -c 3000000 /dev/zero")
    with pytest.raises(BadConfiguration, match="neither an ELF file nor a tar"):
        inspecting.inspect("sdrun:x", FACTS, lambda: runtime)


def test_an_image_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="neither a file nor an image of the local docker") as caught:
        inspecting.inspect("sdrun:v1", FACTS, FakeRuntime)
    assert caught.value.id == "not-inspectable"
    assert "registry.example/team/sdrun:TAG" in caught.value.remedy


def no_runtime() -> ContainerRuntime:
    raise RuntimeUnavailable("no container runtime is installed", "Install one.")


def test_without_a_runtime_a_word_is_a_missing_file_and_a_reference_an_image() -> None:
    with pytest.raises(BadConfiguration, match="no such file"):
        inspecting.inspect("sd-cli", FACTS, no_runtime)
    for reference in ("sdrun:x", "ghcr.io/someone/sd", "sha256:" + "1" * 64):
        with pytest.raises(RuntimeUnavailable):
            inspecting.inspect(reference, FACTS, no_runtime)


def test_a_runtime_without_its_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnavailable) as caught:
        inspecting.inspect("sdrun:x", FACTS, lambda: FakeRuntime(local=[IMAGE]))
    assert caught.value.id == "runtime-missing"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inspecting, "read_archive", full)
    with pytest.raises(Exception, match="no space left") as caught:
        inspecting.inspect(written(tmp_path, "x.tar", docker_archive([])), FACTS, FakeRuntime)
    assert caught.value.id == "disk-full"
