"""The table of `resolve --explain`: readable in 80 columns, the winner on top."""

from __future__ import annotations

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from sdrun.core.explain import Explanation

_STYLES = {"taken": "bold green", "runner-up": "", "rejected": "dim"}


def print_table(told: Explanation) -> None:
    """Prints every candidate on stdout, and below what a driver update would gain."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("TARGET", no_wrap=True)
    table.add_column("VERDICT", no_wrap=True)
    table.add_column("RUNS BY", no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for row in told.candidates:
        style = _STYLES[row.verdict]
        table.add_row(row.target, row.verdict, row.code_path or "-", Text(row.why), style=style)
    terminal = Terminal(highlight=False, soft_wrap=False)
    terminal.print(table)
    if told.gain:
        terminal.print(Text(f"Driver: {told.gain}"))
