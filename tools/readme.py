"""Writes the README's table of targets anew from images/, or, with --check, says whether it is as images/ say."""

from __future__ import annotations

import sys
from pathlib import Path

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.render.readme import updated

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> str | None:
    """What is wrong, or None."""
    old = README.read_text(encoding="utf-8")
    try:
        new = updated(old, targets().rows, load_cuda_facts())
    except ValueError as fault:
        return f"{README.name} {fault}"
    if sys.argv[1:] == ["--check"]:
        return None if new == old else f"the table of targets in {README.name} is not what images/ say: make readme"
    if sys.argv[1:]:
        return "usage: tools/readme.py [--check]"
    README.write_text(new, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
