"""What a download shows: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import re

import pytest

from sdrun.cli.console import Console
from sdrun.cli.downloads import Downloads
from sdrun.models.meter import Phase, Progress


class Terminal(io.StringIO):
    """A stderr that says it is one."""

    def isatty(self) -> bool:
        return True


def state(phase: Phase, name: str, file_done: int, done: int, rate: float | None = None, left: float | None = None) -> Progress:
    return Progress(phase, name, file_done, 2_000_000, done, 4_000_000, rate, left)


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes stderr a terminal; in the test itself, since pytest puts its own stderr in place after fixtures have run."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return stream


def last_frame(stream: Terminal) -> list[str]:
    """The lines of the last drawing, without control codes."""
    frames = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame) for frame in stream.getvalue().split("\r")]
    text = "\n".join(frame.strip("\n") for frame in frames)
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    return lines[-3:]


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    downloads = Downloads(Console())
    downloads.show(state("fetching", "diffusion.gguf", 1_000_000, 1_000_000))
    downloads.show(state("fetching", "a-text-encoder-with-a-very-long-name-Q8_0.gguf", 500_000, 1_500_000, 250_000.0, 10.0))
    downloads.show(state("checking", "diffusion.gguf", 1_000_000, 1_500_000, 250_000.0, 10.0))
    downloads.close()
    everything, diffusion, encoder = last_frame(terminal)
    assert re.match(r"all files +\S+ +1.5/4.0 MB 250 kB/s 0:10 left", everything)
    assert re.match(r"diffusion.gguf +\S+ +1.0/2.0 MB checking 50%", diffusion)
    assert re.match(r"\.\.\.-very-long-name-Q8_0.gguf +\S+ +0.5/2.0 MB", encoder)
    assert all(len(line) <= 80 for line in (everything, diffusion, encoder))


def test_nothing_is_drawn_where_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    Downloads(Console()).close()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_elsewhere_and_nothing_when_quiet(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    downloads = Downloads(Console(quiet=quiet))
    downloads.show(state("fetching", "a", 1_000_000, 1_000_000))
    downloads.close()
    assert capsys.readouterr() == ("", "" if quiet else " 25%  1.0 MB of 4.0 MB\n")
