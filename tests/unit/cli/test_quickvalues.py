"""Values taken as they are must be those typer would make, and its errors must stay its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
import typer

class Colour(str, Enum):
    RED = "red"

def asked(value):
    return f"asked {value}"

app = typer.Typer()

@app.command()
def one(
    word: Annotated[str, typer.Argument()],
    rest: Annotated[list[str] | None, typer.Argument()] = None,
    text: Annotated[str | None, typer.Option()] = None,
    whole: Annotated[int | None, typer.Option()] = None,
    usual: Annotated[int, typer.Option()] = 3,
    bounded: Annotated[int, typer.Option(min=1, max=9)] = 3,
    number: Annotated[float | None, typer.Option()] = None,
    path: Annotated[Path | None, typer.Option()] = None,
    here: Annotated[Path | None, typer.Option(exists=True)] = None,
    file: Annotated[Path | None, typer.Option(dir_okay=False)] = None,
    paths: Annotated[list[Path] | None, typer.Option()] = None,
    numbers: Annotated[list[int], typer.Option()] = [1],
    flag: Annotated[bool, typer.Option("--flag/--no-flag")] = False,
    from_environment: Annotated[bool, typer.Option(envvar="FLAG_OF_THE_TEST")] = False,
    colour: Annotated[Colour, typer.Option()] = Colour.RED,
    choice: Annotated[Literal["a", "b"] | None, typer.Option()] = None,
    parsed: Annotated[str | None, typer.Option(parser=asked)] = None,
    called: Annotated[str | None, typer.Option(callback=asked)] = None,
):
    print(repr(sorted(locals().items())))

def answers():
    rows = []
    for words in json.loads(sys.argv[1]):
        import contextlib, io
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                app(words, standalone_mode=False)
            rows.append(out.getvalue())
        except typer.TyperException as error:
            rows.append(f"{type(error).__name__}: {error.format_message()}")
    return rows

before = answers()
from sdrun.cli.quickvalues import spare_adapters
spare_adapters()
spare_adapters()
print(json.dumps([before, answers()]))
"""


def command_lines(folder: Path) -> list[list[str]]:
    """Each kind of option with values that it takes and values that it does not."""
    file = folder / "file"
    file.touch()
    paths = [str(file), str(folder), str(folder / "none"), str(file / "none"), "-", "", "a b", "~", "x" * 5000]
    numbers = [
        "7",
        "-7",
        "+7",
        "007",
        " 7",
        "7.0",
        "7.5",
        "1e3",
        "1_000",
        "٧",
        "",
        "nan",
        "inf",
        "99999999999999999999",
        "0x10",
    ]
    rows = [
        [],
        ["w"],
        ["w", "x", "y"],
        [""],
        ["w", "--text"],
        ["w", "--nothing"],
        ["w", "--flag"],
        ["w", "--no-flag"],
        ["--help"],
    ]
    rows += [["w", "--text", value] for value in ("", "x", "é", "\udcff", " ", "--")]
    rows += [
        ["w", option, value] for option in ("--whole", "--usual", "--bounded", "--number", "--numbers") for value in numbers
    ]
    rows += [["w", option, value] for option in ("--path", "--here", "--file", "--paths") for value in paths]
    rows += [
        ["w", "--paths", str(file), "--paths", "b"],
        ["w", "--numbers", "1", "--numbers", "2"],
        ["w", "--numbers", "1", "--numbers", "x"],
    ]
    rows += [["w", option, value] for option in ("--colour", "--choice", "--parsed", "--called") for value in ("red", "a", "x")]
    return rows


@pytest.mark.parametrize("environment", [{}, {"FLAG_OF_THE_TEST": "yes"}, {"FLAG_OF_THE_TEST": "what"}])
def test_values_and_errors_are_typers_own(tmp_path: Path, environment: dict[str, str]) -> None:
    rows = command_lines(tmp_path) if not environment else [["w"]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(rows)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", **environment},
    )
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert dict(zip(map(str, rows), after, strict=True)) == dict(zip(map(str, rows), before, strict=True))
    assert len(set(before)) > len(rows) // 3  # the table tells them apart


def test_a_plain_command_line_needs_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"schema": "sdrun.index/v1", "engine": "e", "images": []}')
    (tmp_path / "host.json").write_text(
        json.dumps({"schema": "sdrun.host/v1", "platform": "linux/amd64", "gpus": [], "probe": "none"})
    )
    code = (
        "import sys; sys.argv = ['sdrun', 'resolve', '--host', 'host.json', '--index', 'index.json', '--json']\n"
        "from sdrun.cli.main import main\n"
        "print(main(), [name for name in ('pydantic', 'rich', 'docker') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "3 []"
