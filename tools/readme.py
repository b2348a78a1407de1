"""Writes the tables of the README and of docs/ anew, from images/ and bench/results/, or, with --check, says whether they are
as those say. A table whose measurement has no result yet says so."""

from __future__ import annotations

import sys
from pathlib import Path

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.render.readme import TARGETS, blocks, target_table, updated
from sdrun.render.results import NoResult, read_results, result_names, result_table

ROOT = Path(__file__).resolve().parent.parent
NOTHING = "Not measured yet.\n"


def table(name: str) -> str:
    """The block of that name. Raises ValueError for a name that is none, and where results have another form than expected."""
    if name == TARGETS:
        return target_table(targets().rows, load_cuda_facts())
    if name not in result_names():
        raise ValueError(f"there is no block {name}; there are {', '.join([TARGETS, *result_names()])}")
    try:
        return result_table(name, read_results(ROOT / "bench" / "results"))
    except NoResult:
        return NOTHING


def pages() -> dict[Path, tuple[str, str]]:
    """The text of each page as it is and as it should be. Raises ValueError."""
    found = {}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if path.name == "README.md" and TARGETS not in blocks(text):
            raise ValueError(f"README.md lacks the line <!-- {TARGETS}: written by `make readme` from images/ --> or its end")
        try:
            found[path] = text, updated(text, table)
        except ValueError as fault:
            raise ValueError(f"{path.name}: {fault}") from None
    return found


def main() -> str | None:
    """What is wrong, or None."""
    if sys.argv[1:] not in ([], ["--check"]):
        return "usage: tools/readme.py [--check]"
    try:
        found = pages()
    except ValueError as fault:
        return str(fault)
    drifted = {path: new for path, (old, new) in found.items() if new != old}
    if sys.argv[1:]:
        names = ", ".join(path.name for path in drifted)
        return f"a table in {names} is not what images/ and bench/results/ say: make readme" if drifted else None
    for path, new in drifted.items():
        path.write_text(new, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
