"""What goes where: the result on stdout; progress, notes and errors on stderr; JSON on stdout when it was asked for."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdrun.errors import SdrunError

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
        """A result a script may read: one line (or table) on stdout."""
        print(text, flush=True)

    def document(self, value: object) -> None:
        """A JSON answer on stdout."""
        print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)

    def note(self, text: str) -> None:
        """Something worth knowing while it works, on stderr; silent under --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Something only --verbose shows, such as a command before it is run."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def error(self, error: SdrunError) -> None:
        """The verdict, the raw text behind it, and the remedy; with --json also the error object on stdout."""
        if self.as_json:
            self.document(error.to_json())
        print(f"sdrun: {error.message}", file=sys.stderr)
        if error.detail:
            print(error.detail.rstrip("\n"), file=sys.stderr)
        if error.remedy:
            print(f"  remedy: {error.remedy}", file=sys.stderr)
        sys.stderr.flush()
