"""Renews the pins of images/ (engine, base images) and prints what changed as Markdown, the first line a title."""

from __future__ import annotations

import sys
from pathlib import Path

from sdrun.build.bump import bump
from sdrun.cli.console import say
from sdrun.errors import SdrunError

IMAGES = Path(__file__).resolve().parent.parent / "images"


def main() -> int:
    """The exit code: 0, or that of the error."""
    if len(sys.argv) > 2:
        say("usage: tools/bump.py [FOLDER]")
        return 2
    try:
        changes = bump(Path(sys.argv[1]) if sys.argv[1:] else IMAGES, say)
    except SdrunError as error:
        say(f"{error.message}\n  remedy: {error.remedy}")
        return error.exit_code
    if not changes:
        print("Every pin is the newest")
        return 0
    print(f"Newer pins: {', '.join(change.what for change in changes)}\n")
    print("\n".join(f"- {change}" for change in changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
