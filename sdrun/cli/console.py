"""What goes where: the result on stdout; progress, notes and errors on stderr; JSON on stdout when it was asked for.

What is said on the way is worth less than the work: a stderr that is closed, broken or full is passed over. A result that
cannot be written is an error.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdrun.errors import Interrupted, SdrunError, UsageProblem

if TYPE_CHECKING:
    from sdrun.catalog.config import Settings


@dataclass(slots=True)
class Console:
    """The two streams, how much to say on them, and the settings. One per process; verbs get it as `typer.Context.obj`."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    config: Path | None = None

    def settings(self) -> Settings:
        """The settings in force, read when a verb first needs them (sdrun.catalog.config)."""
        from sdrun.catalog.config import load_settings

        return load_settings(self.config)

    def result(self, text: str) -> None:
        """A result a script may read: one line (or table) on stdout. Raises UsageProblem (`output-not-writable`) where stdout
        takes nothing, BrokenPipeError where its reader has gone."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as fault:
            sys.stdout = None  # else the interpreter tries once more at its end
            raise unwritable(fault) from None

    def document(self, value: object) -> None:
        """A JSON answer on stdout. A file name that is no text is escaped, so that the answer is."""
        text = json.dumps(value, indent=2, ensure_ascii=False)
        try:
            text.encode((sys.stdout and sys.stdout.encoding) or "utf-8")
        except UnicodeEncodeError:
            text = json.dumps(value, indent=2)
        self.result(text)

    def note(self, text: str) -> None:
        """Something worth knowing while it works, on stderr; silent under --quiet."""
        if not self.quiet:
            say(text)

    def detail(self, text: str) -> None:
        """Something only --verbose shows, such as a command before it is run."""
        if self.verbose:
            say(text)

    def error(self, error: SdrunError) -> None:
        """The verdict, the raw text behind it, and the remedy; with --json also the error object on stdout."""
        if self.as_json:
            try:
                self.document(error.to_json())
            except (BrokenPipeError, UsageProblem):
                sys.stdout = None  # nobody can be told there; the exit code and stderr still say it
        say(f"sdrun: {error.message}")
        if error.detail:
            say(error.detail.rstrip("\n"))
        if error.remedy:
            say(f"  remedy: {error.remedy}")


def unwritable(fault: OSError) -> UsageProblem:
    """The verdict on a stdout that takes nothing."""
    return UsageProblem(
        f"the result cannot be written to stdout: {fault.strerror}", "Send it elsewhere.", id="output-not-writable"
    )


def stdout_takes_more() -> bool:
    """False where it refuses an empty line (help and version are typer's to print); it is given up then."""
    try:
        print(flush=True)
    except OSError:
        sys.stdout = None
        return False
    return True


def say(text: str) -> None:
    """A line on stderr, where there is one that takes it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """The words before `--`, which are sdrun's own."""
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def stopped(arguments: Sequence[str]) -> int:
    """Says that the user has stopped it before anything was begun; the exit code."""
    error = Interrupted("stopped", "Run the same command again.")
    Console(as_json="--json" in own_arguments(arguments)).error(error)
    return error.exit_code


def printable() -> None:
    """Makes both streams take any text: a file name that is no text leaves as the bytes it is, what the terminal's encoding
    lacks as an escape. A stderr that the caller has closed is replaced: `print` would write to stdout instead of it."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    codecs.register_error("sdrun", _as_bytes_or_escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sdrun")


def _as_bytes_or_escaped(fault: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(fault)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(fault)
