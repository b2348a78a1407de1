"""Where the words of the program go: streams that are closed, broken, full or of another encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from sdrun.cli.console import Console, printable
from sdrun.errors import UsageProblem
printable()
console = Console(as_json=True)
console.note("a note")
{rest}
"""


def run(rest: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-c", PROGRAM.format(rest=rest)]
    return subprocess.run(argv, check=False, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})  # type: ignore[call-overload,no-any-return]


def environ(encoding: str) -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": encoding}


@pytest.mark.parametrize(("encoding", "said"), [("utf-8:strict", "ä\udcff.png"), ("ascii:strict", "\\xe4\\udcff.png")])
def test_a_name_that_the_encoding_lacks(encoding: str, said: str) -> None:
    done = run(r'console.result("\xe4\udcff.png")', env=environ(encoding))
    assert (done.returncode, os.fsdecode(done.stdout)) == (0, f"{said}\n")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_json_is_json_whatever_the_name(encoding: str) -> None:
    done = run(r'console.document({"files": ["\xe4\udcff.png"]})', env=environ(encoding))
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"files": ["ä\udcff.png"]}


def test_a_closed_stderr_never_reaches_stdout() -> None:
    code = PROGRAM.format(rest='console.error(UsageProblem("bad", "good"))')
    done = subprocess.run(["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["message"] == "bad"


def test_a_broken_or_full_stderr_costs_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run('console.result("done")', stderr=writer).stdout == b"done\n"
    finally:
        os.close(writer)
    with Path("/dev/full").open("wb") as full:
        assert run('console.result("done")', stderr=full).stdout == b"done\n"


def test_a_full_stdout_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sdrun", "targets", "--json"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert b"cannot be written to stdout" in done.stderr
    assert b"Traceback" not in done.stderr


def test_ctrl_c_while_the_program_is_loaded() -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "sdrun.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = ["sdrun", "generate", "--json"]
from sdrun.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 130
    assert json.loads(done.stdout)["id"] == "interrupted"
    assert b"Traceback" not in done.stderr
