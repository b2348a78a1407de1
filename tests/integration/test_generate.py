"""`sdrun generate` as a user runs it: the real program, a real container, a real picture."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdrun.runtime.protocol import LocalImage

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cpu_image")]

QUICK = ("-m", "tiny", "--allow-cpu", "--gpu", "none", "--steps", "2", "-W", "64", "-H", "64")


def generate(*arguments: str, cwd: Path, env: dict[str, str], before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sdrun", *before, "generate", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=120)


def metadata(path: Path) -> dict[str, object]:
    """What the engine wrote into the picture about how it was made."""
    data = path.read_bytes()
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"tEXt":
            text = data[place + 8 : place + 8 + length].split(b"\0", 1)[1].decode("utf-8")
            found: dict[str, object] = json.loads(text[text.rindex("SDCPP: ") + 7 :])
            return found
        place += 12 + length
    raise AssertionError("no text in the picture")


@pytest.mark.parametrize("which", ["docker", "podman"])
def test_a_picture_and_its_path(
    which: str, work: Path, environment: dict[str, str], request: pytest.FixtureRequest, cpu_image: LocalImage
) -> None:
    if which == "podman":
        environment["SDRUN_RUNTIME"] = "podman"
        environment["CONTAINER_HOST"] = f"unix://{request.getfixturevalue('podman_socket')}"
    done = generate(*QUICK, "-p", "a fox", "-o", "new/fox.png", cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{work}/new/fox.png\n"
    with Image.open(work / "new" / "fox.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert [path.name for path in (work / "new").iterdir()] == ["fox.png"]
    for stage in ("loading weights", "drawing, 2 steps", "saving"):
        assert stage in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "-n",
        "--steps 9",
        "-",
        "a 'b' \"c\" $(touch x) `e` \\ | & ; > y",
        "two\nlines\t\r\n",
        "🦊 é 狐 \u202e",
        "%d%s{}",
        "=x",
    ],
)
def test_prompts_arrive_unchanged(prompt: str, work: Path, environment: dict[str, str]) -> None:
    done = generate(*QUICK, "-p", prompt, "-n", prompt, "-o", "x.png", "--steps", "1", cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    assert metadata(work / "x.png")["prompt"] == {"positive": prompt, "negative": prompt}
    assert [path.name for path in work.iterdir()] == ["x.png"]


def test_same_seed_same_bytes_and_other_words_or_seeds_differ(work: Path, environment: dict[str, str]) -> None:
    def bytes_of(*arguments: str) -> bytes:
        done = generate(*QUICK, *arguments, "-o", "x.png", cwd=work, env=environment)
        assert done.returncode == 0, done.stderr
        with Image.open(work / "x.png") as picture:
            return picture.tobytes()

    one = bytes_of("-p", "a red fox")
    assert bytes_of("-p", "a red fox") == one
    assert bytes_of("-p", "a blue house under a tree") != one
    assert bytes_of("-p", "a red fox", "--seed", "7") != one


def test_json(work: Path, environment: dict[str, str], cpu_image: LocalImage) -> None:
    done = generate(*QUICK, "-p", "x", "-b", "2", "--seed", "-1", "-o", "x.jpg", "--json", cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == "sdrun.generate/v1"
    assert answer["files"] == [f"{work}/x_1.jpg", f"{work}/x_2.jpg"]
    assert (answer["target"], answer["image"], answer["code_path"]) == ("cpu", cpu_image.id, "cpu")
    assert answer["device"] == "cpu"
    assert answer["model"].startswith("tiny")
    assert f"seed {answer['seed']}" in done.stderr
    assert 0 < answer["seconds"]["engine"] < answer["seconds"]["total"]
    log = Path(answer["log"]).read_bytes()
    assert b"2/2 images saved" in log
    for path in answer["files"]:
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_quiet_and_verbose(work: Path, environment: dict[str, str]) -> None:
    quiet = generate(*QUICK, "-p", "x", cwd=work, env=environment, before=("--quiet",))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, f"{work}/output.png\n", "")
    loud = generate(*QUICK, "-p", "x", cwd=work, env=environment, before=("--verbose",))
    assert loud.stdout == f"{work}/output-2.png\n"
    assert "docker run --rm --init --network none" in loud.stderr
    assert "generate_image 64x64" in loud.stderr


def test_a_first_picture_and_engine_arguments(work: Path, environment: dict[str, str]) -> None:
    Image.new("RGB", (96, 64), "red").save(work / "first, with comma.png")
    done = generate(
        *("-m", "tiny", "--allow-cpu", "--steps", "4", "-p", "x", "-i", "first, with comma.png", "--strength", "0.3"),
        *("-o", "second.png", "--", "--vae-tiling", "--rng", "cpu"),
        cwd=work,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(work / "second.png") as picture:
        assert picture.size == (96, 64)
    assert metadata(work / "second.png")["rng"] == "cpu"


def test_a_printed_command_can_be_pasted(work: Path, environment: dict[str, str]) -> None:
    odd = work / "a, 'b' c"
    odd.mkdir()
    prompt = "a 'red' \"fox\"\n$HOME"
    done = generate(*QUICK, "-p", prompt, "-o", "pasted.png", "--dry-run", cwd=odd, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(odd.iterdir()) == []
    assert shlex.split(done.stdout)[:2] == ["docker", "run"]
    pasted = subprocess.run(["sh", "-c", done.stdout], capture_output=True, text=True, check=False, timeout=120)
    assert pasted.returncode == 0, pasted.stderr
    assert metadata(odd / "pasted.png")["prompt"] == {"positive": prompt, "negative": ""}
    real = generate(*QUICK, "-p", prompt, "-o", "real.png", cwd=odd, env=environment)
    assert real.returncode == 0, real.stderr
    with Image.open(odd / "real.png") as one, Image.open(odd / "pasted.png") as other:
        assert one.tobytes() == other.tobytes()  # the files differ in what they say of themselves


def test_a_printed_command_in_json(work: Path, environment: dict[str, str]) -> None:
    done = generate(*QUICK, "-p", "x", "-o", "new/x.png", "--dry-run", "--json", cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema"], document["code_path"]) == ("sdrun.command/v1", "cpu")
    assert document["command"][:2] == ["docker", "run"]
    assert f"mkdir -p {work / 'new'}" in done.stderr


@pytest.mark.parametrize("after", [0.4, 0.7, 1.5])
def test_sigkill_leaves_no_container_and_no_hidden_folder(work: Path, environment: dict[str, str], after: float) -> None:
    argv = [sys.executable, "-m", "sdrun", "generate", *QUICK, "-p", "x", "--steps", "200", "-W", "256", "-H", "256"]
    process = subprocess.Popen(argv, cwd=work, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 15
    while (left := [*mine(work), *map(str, work.glob(".sdrun-*"))]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def mine(folder: Path) -> list[str]:
    """The containers, running or not, that have a folder below `folder` mounted."""
    argv = ["docker", "ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Mounts}}"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


def test_two_at_once_do_not_disturb_each_other(work: Path, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "sdrun", "generate", *QUICK, "-p"]
    both = [
        subprocess.Popen([*argv, prompt], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for prompt in ("one", "two")
    ]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    paths = [Path(out.strip()) for out, _ in answers]
    assert sorted(path.name for path in work.iterdir()) == ["output-2.png", "output.png"]
    assert [dict(metadata(path)["prompt"])["positive"] for path in paths] == ["one", "two"]  # type: ignore[call-overload]


def test_the_caller_owns_the_picture(
    somebodys_home: Path, run_as_somebody: Callable[..., subprocess.CompletedProcess[str]], environment: dict[str, str]
) -> None:
    socket = Path("/var/run/docker.sock").stat().st_gid
    words = ("generate", *QUICK, "-p", "x", "-o", "mine.png")
    done = run_as_somebody(words, somebodys_home, environment, groups=(socket,))
    assert done.returncode == 0, done.stderr
    info = (somebodys_home / "mine.png").stat()
    assert (info.st_uid, info.st_gid) == (1234, 2345)


def test_on_a_terminal(work: Path, environment: dict[str, str]) -> None:
    """A bar while it works and the picture afterwards, both on stderr; stdout has the path and nothing else."""
    environment |= {"TERM": "xterm-256color", "SDRUN_STATE_DIR": str(work / ".state")}
    environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    argv = [sys.executable, "-m", "sdrun", "generate", *QUICK, "--steps", "8", "-p", "x", "-o", "x.png", "--show"]
    process = subprocess.Popen(argv, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # what Linux says when the other side has been closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    assert process.stdout is not None  # it was asked for
    with process.stdout as stdout:
        assert stdout.read() == f"{work}/x.png\n".encode()
    assert process.wait(30) == 0
    text = seen.decode()
    assert "loading weights" in text
    assert "▀" in text
    drawn = [line for line in text.splitlines() if "▀" in line]
    assert len(drawn) == 22  # 24 lines less two
    assert all(line.count("▀") == 44 for line in drawn)
    assert "38;2;" in drawn[0]
