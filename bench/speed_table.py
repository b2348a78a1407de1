"""The tables of docs/speed.md, from what was measured.

    python bench/speed_table.py [--check]

Rewrites what stands between the marks `<!-- speed: NAME -->` and `<!-- speed: end -->`; NAME is a file of bench/results without
its ending. --check: exit 1 where that would change anything.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "bench" / "results"
_BLOCK = re.compile(r"(<!-- speed: (\w+) -->\n).*?(<!-- speed: end -->)", re.DOTALL)


def table(document: Mapping[str, Any]) -> str:
    """A line of where it was measured, then a row for each case, those of one type and size together."""
    rows = document["figures"]["rows"]
    first = rows[0]["engine"]
    plain = {key(row): row for row in rows if row["engine"] == first and not row["options"] and not row["env"]}
    machine = document["machine"]
    lines = [
        f"{machine.get('device', machine['processor'])}, {document['date']}.",
        "",
        "| weights | size | engine | told | steps a second | ratio | decoded in | GPU memory | difference: mean, most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (-row["size"], row["type"], -row["steps"])):
        lines.append(line(row, plain.get(key(row))))
    return "\n".join(lines) + "\n"


def key(row: Mapping[str, Any]) -> tuple[str, int, int]:
    """What rows that are compared have in common."""
    return row["type"], row["size"], row["steps"]


def line(row: Mapping[str, Any], plain: Mapping[str, Any] | None) -> str:
    """One row. The ratio is to the first engine without options."""
    told = " ".join([row["options"], *(f"{name}={value}" for name, value in row["env"].items())]).strip()
    speed, base = row.get("steps_per_s"), (plain or {}).get("steps_per_s")
    cells: Sequence[str] = (
        row["type"].upper(),
        str(row["size"]),
        row["engine"],
        f"`{told}`" if told else "",
        f"{speed['median']:.2f} ({speed['least']:.2f} to {speed['most']:.2f})" if speed else "",
        f"{speed['median'] / base['median']:.2f}" if speed and base else "",
        f"{row['decode_s']:.2f} s" if "decode_s" in row else "",
        f"{row['peak_mib']} MiB" if "peak_mib" in row else "",
        f"{row['difference_mean']:.2f}, {row['difference_most']}" if "difference_mean" in row else "",
    )
    failed = " **failed**" if any(row["exits"]) else " **black**" if row.get("black") else ""
    return "| " + " | ".join(cells) + f"{failed} |"


def rewritten(text: str) -> str:
    """The page with every table as it should be."""

    def block(found: re.Match[str]) -> str:
        document = json.loads((RESULTS / f"{found[2]}.json").read_text(encoding="utf-8"))
        return f"{found[1]}{table(document)}{found[3]}"

    return _BLOCK.sub(block, text)


def main() -> int:
    """Rewrites the page, or looks whether it would."""
    text = PAGE.read_text(encoding="utf-8")
    new = rewritten(text)
    if "--check" in sys.argv:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
