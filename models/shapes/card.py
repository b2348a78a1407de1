"""The tables of the model cards: measure.json recorded under bench/results, and its figures written into README.md beside this
and into the short CARD.md that goes with the weights.

python -m models.shapes.card MEASURE DEVICE     records what measure.py left, and writes the tables
python -m models.shapes.card                    writes the tables from what is recorded
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrun.models.gguf import write_atomically

CARD = Path(__file__).parent / "README.md"
SHIPPED_CARD = Path(__file__).parent / "weights" / "CARD.md"
RECORD = Path(__file__).parent.parent.parent / "bench" / "results" / "shapes_accuracy.json"
Figures = dict[str, dict[str, dict[str, float]]]  # of each type, of each kind of prompt: pictures, and shares in percent
BEGIN, END = "<!-- accuracy -->\n", "<!-- /accuracy -->\n"
KINDS = {"single": "one figure", "relation": "two, related", "inside": "one inside another", "pair": "two",
         "count": "two to four equal", "trio": "three", "all": "all"}  # fmt: skip
PARTS = ("number", "color", "shape", "size", "position", "relation", "background")


def recorded(measured: dict[str, Any], device: str) -> dict[str, Any]:
    """The form in which bench/results keeps a measurement, shares in percent."""
    figures = {
        name: {
            kind: {part: int(value) if part == "pictures" else round(100 * value, 1) for part, value in row.items()}
            for kind, row in rows.items()
        }
        for name, rows in measured.items()
    }
    return {
        "measured": "shapes_accuracy",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"device": device},
        "rerun": "make shapes",
        "figures": figures,
    }


def table(figures: Figures) -> str:
    """Markdown: a row for each kind of prompt, and what of it was right with the smallest of the types."""
    lines = ["| kind | pictures | f16, % right | Q4_0, % right | " + " | ".join(f"{part}" for part in PARTS) + " |"]
    lines.append("|---|" + "---:|" * (3 + len(PARTS)))
    for kind, row in figures["q4_0"].items():
        parts = [f"{row[part]:.1f}" if part in row else "" for part in PARTS]
        shares = [f"{figures[name][kind]['ok']:.1f}" for name in ("f16", "q4_0")]
        lines.append("| " + " | ".join([kind, f"{row['pictures']}", *shares, *parts]) + " |")
    return "\n".join(lines) + "\n"


def short_table(figures: Figures) -> str:
    """Markdown: a column for each kind of prompt, a row for each of the types, the shipped one first."""
    lines = ["| | " + " | ".join(KINDS.values()) + " |", "|---|" + "---:|" * len(KINDS)]
    for name, title in (("q4_0", "Q4_0"), ("f16", "f16")):
        lines.append("| " + " | ".join([title, *(f"{figures[name][kind]['ok']:.1f}" for kind in KINDS)]) + " |")
    return "".join(f"  {line}\n" for line in lines)


def updated(card: str, text: str) -> str:
    """The card with this table in its place, which may be indented. Raises ValueError where it has no place for one."""
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the card has no {BEGIN.strip()} ... {END.strip()}")
    return before + begin + text + end + after


def cards(figures: Figures) -> dict[Path, str]:
    """Both cards as they must be with these figures."""
    tables = {CARD: table(figures), SHIPPED_CARD: short_table(figures)}
    return {path: updated(path.read_text(), text) for path, text in tables.items()}


def main(arguments: list[str]) -> None:
    """Records and writes."""
    if arguments:
        measure, device = arguments
        record = recorded(json.loads(Path(measure).read_text()), device)
        write_atomically(RECORD, (json.dumps(record, indent=2) + "\n").encode())
    for path, text in cards(json.loads(RECORD.read_text())["figures"]).items():
        write_atomically(path, text.encode())


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3):
        sys.exit(__doc__)
    main(sys.argv[1:])
