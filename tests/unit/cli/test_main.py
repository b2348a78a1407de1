"""The front of the program: help, version, usage errors, and what a defect looks like."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sdrun.cli import main as front
from sdrun.cli.verbs import PANELS, VERBS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sdrun", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_verb_and_imports_none() -> None:
    code = (
        "import sys; sys.argv = ['sdrun', '--help']\n"
        "from sdrun.cli.main import main\n"
        "rc = main()\n"
        f"loaded = [m for m in sys.modules if m in {[f'sdrun.cli.{verb}' for verb in VERBS]!r}]\n"
        "heavy = [m for m in ('docker', 'yaml', 'jinja2', 'pynvml', 'requests', 'pydantic', 'rich') if m in sys.modules]\n"
        "sys.exit(f'{rc} {loaded} {heavy}' if rc or loaded or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_loads_and_has_help(verb: str) -> None:
    assert VERBS[verb][0] in PANELS
    done = run(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def on_a_terminal(**environment: str) -> str:
    """What `sdrun --help` says there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "sdrun", "--help"], {**os.environ, "TERM": "xterm", **environment})
    text = b""
    with suppress(OSError):  # how a terminal ends
        while piece := os.read(terminal, 65536):
            text += piece
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    return text.decode()


def test_headings_stand_out_on_a_terminal_that_is_to_be_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in on_a_terminal()
    for variable, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        text = on_a_terminal(**{variable: value})
        assert "Options:" in text
        assert "\x1b" not in text


UNWRITTEN = [["--version"], ["--help"], ["resolve", "--help"], ["fleet"], ["--show-completion", "bash"], ["targets", "--json"]]


@pytest.mark.parametrize("arguments", UNWRITTEN)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_takes_nothing_is_told(arguments: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sdrun", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["sdrun: the result cannot be written to stdout: No space left on device", "  remedy: Send it elsewhere."],
    )


@pytest.mark.parametrize("arguments", UNWRITTEN[:3] + UNWRITTEN[4:])
def test_a_reader_that_went_away_is_no_failure(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "sdrun", *arguments]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_plain_text_under_the_headings_of_the_options() -> None:
    text = run("generate", "--help").stdout
    assert text.startswith("Usage: sdrun generate [OPTIONS]")
    places = [text.index(f"\n{heading}:\n") for heading in ("Arguments", "Options", "Picture", "Where it runs")]
    assert places == sorted(places)
    assert places[2] < text.index("--steps <int>") < places[3] < text.index("--allow-cpu")
    assert "[required]" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("group", [[], ["fleet"], ["models"]])
def test_a_group_alone_prints_its_help(group: list[str]) -> None:
    alone, asked = run(*group), run(*group, "--help")
    assert (alone.returncode, asked.returncode) == (2, 0)
    assert alone.stdout == asked.stdout != ""
    assert alone.stderr == ""


def test_version_is_one_line() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sdrun ")


def test_a_mistyped_verb_is_suggested() -> None:
    done = run("genrate")
    assert done.returncode == 2
    assert "generate" in done.stderr
    assert "remedy:" in done.stderr


def test_usage_errors_are_json_when_json_was_asked_for() -> None:
    done = run("resolve", "--json", "--no-such-option")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["schema"] == "sdrun.error/v1"
    assert (document["id"], document["exit_code"]) == ("usage", 2)
    assert document["remedy"]


def test_no_arguments_is_help_and_usage_exit() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


def test_a_defect_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> object:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(front, "_program", broken)
    monkeypatch.setattr(sys, "argv", ["sdrun", "detect"])
    monkeypatch.delenv("SDRUN_TRACEBACK", raising=False)
    assert front.main() == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "Traceback" not in said
    monkeypatch.setenv("SDRUN_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        front.main()


def test_ctrl_c_in_a_verb_is_told_also_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(console: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdrun.cli.console.Console.settings", interrupted)
    monkeypatch.setattr(sys, "argv", ["sdrun", "generate", "-m", "tiny", "-p", "x", "--json"])
    assert front.main() == 130
    said = capsys.readouterr()
    assert json.loads(said.out)["id"] == "interrupted"
    assert "stopped" in said.err


@pytest.mark.parametrize("option", ["--quiet", "-q", "--verbose", "--config"])
def test_an_option_of_the_program_behind_the_verb_is_told_where_it_stands(option: str) -> None:
    done = run("generate", option)
    assert done.returncode == 2
    assert f"It stands before the verb: sdrun {option} generate" in done.stderr
