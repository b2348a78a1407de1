"""Writes the README's tables anew, from images/ and bench/results/, or, with --check, says whether they are as those say."""

from __future__ import annotations

import sys
from pathlib import Path

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.render.readme import TARGETS, target_table, updated
from sdrun.render.results import read_results, result_names, result_table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def table(name: str) -> str:
    """The block of that name. Raises ValueError for a name that is none, and where results are missing."""
    if name == TARGETS:
        return target_table(targets().rows, load_cuda_facts())
    if name not in result_names():
        raise ValueError(f"has a block {name}; there are {', '.join([TARGETS, *result_names()])}")
    return result_table(name, read_results(ROOT / "bench" / "results"))


def main() -> str | None:
    """What is wrong, or None."""
    old = README.read_text(encoding="utf-8")
    try:
        new = updated(old, table)
    except ValueError as fault:
        return f"{README.name}: {fault}"
    if sys.argv[1:] == ["--check"]:
        return None if new == old else f"a table in {README.name} is not what images/ and bench/results/ say: make readme"
    if sys.argv[1:]:
        return "usage: tools/readme.py [--check]"
    README.write_text(new, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
