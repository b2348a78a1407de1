"""The table of the model card: measure.json recorded under bench/results, and its figures written into README.md beside this.

python -m models.shapes.card MEASURE DEVICE     records what measure.py left, and writes the table
python -m models.shapes.card                    writes the table from what is recorded
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrun.models.gguf import write_atomically

CARD = Path(__file__).parent / "README.md"
RECORD = Path(__file__).parent.parent.parent / "bench" / "results" / "shapes_accuracy.json"
BEGIN, END = "<!-- accuracy -->\n", "<!-- /accuracy -->\n"
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


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row for each kind of prompt, and what of it was right with the smallest of the types."""
    lines = ["| kind | pictures | f16, % right | Q4_0, % right | " + " | ".join(f"{part}" for part in PARTS) + " |"]
    lines.append("|---|" + "---:|" * (3 + len(PARTS)))
    for kind, row in figures["q4_0"].items():
        parts = [f"{row[part]:.1f}" if part in row else "" for part in PARTS]
        shares = [f"{figures[name][kind]['ok']:.1f}" for name in ("f16", "q4_0")]
        lines.append("| " + " | ".join([kind, f"{row['pictures']}", *shares, *parts]) + " |")
    return "\n".join(lines) + "\n"


def updated(card: str, figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The card with the table of these figures. Raises ValueError where it has no place for one."""
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{CARD} has no {BEGIN.strip()} ... {END.strip()}")
    return before + begin + table(figures) + end + after


def main(arguments: list[str]) -> None:
    """Records and writes."""
    if arguments:
        measure, device = arguments
        record = recorded(json.loads(Path(measure).read_text()), device)
        write_atomically(RECORD, (json.dumps(record, indent=2) + "\n").encode())
    write_atomically(CARD, updated(CARD.read_text(), json.loads(RECORD.read_text())["figures"]).encode())


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3):
        sys.exit(__doc__)
    main(sys.argv[1:])
