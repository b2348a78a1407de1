"""What is written into the README by a program, between two marks each: the table of targets, with a row for each compute
capability and a column for each toolkit line, and the tables of what was measured (results.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.facts import CudaFacts
from sdrun.core.target import Target
from sdrun.core.version import CudaVersion
from sdrun.resources import templates_dir

if TYPE_CHECKING:
    from jinja2 import Template

TARGETS = "targets"
_BLOCK = re.compile(
    r"(<!-- (?P<name>[a-z-]+): written by `make readme` from [a-z/]+ -->\n).*?(<!-- (?P=name): end -->)", re.DOTALL
)
_GPUS = 3  # names a capability is known by; all of them stand in images/capabilities.yaml


@dataclass(frozen=True, slots=True)
class _Line:
    """A column: the targets of one toolkit."""

    toolkit: CudaVersion
    several: tuple[str, ...]
    driver: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A capability, and its targets line by line."""

    capability: ComputeCapability
    gpus: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def updated(text: str, table: Callable[[str], str]) -> str:
    """A page's text with every block between two marks written anew; `table` gives the text of the block of that name, ending
    with a line break. Raises what `table` raises."""
    return _BLOCK.sub(lambda found: f"{found[1]}{table(found['name'])}{found[3]}", text)


def blocks(text: str) -> list[str]:
    """The names of a page's blocks, in their order."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def target_table(rows: Sequence[Target], facts: CudaFacts) -> str:
    """The table of every CUDA target among `rows`, in Markdown, ending with a line break."""
    toolkits = sorted({row.toolkit for row in rows if row.toolkit is not None})
    columns = [[row for row in rows if row.toolkit == toolkit] for toolkit in toolkits]
    capabilities = sorted({arch.capability for row in rows if (arch := row.id.arch) is not None})
    lines = [_line(toolkit, column) for toolkit, column in zip(toolkits, columns, strict=True)]
    return _template().render(lines=lines, capabilities=[_row(one, columns, facts) for one in capabilities])


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("targets.md.j2")


def _line(toolkit: CudaVersion, column: Sequence[Target]) -> _Line:
    several = (row for row in column if row.id.arch is None)
    floors = [row.min_driver for row in column if row.min_driver is not None]
    return _Line(toolkit, tuple(f"{cell} ({_holds(row)})" for cell, row in _cells(several)), str(max(floors)) if floors else "")


def _row(capability: ComputeCapability, columns: Sequence[Sequence[Target]], facts: CudaFacts) -> _Row:
    known = facts.capabilities.get(capability)
    cells = (
        tuple(cell for cell, _ in _cells(row for row in column if row.id.arch and row.id.arch.capability == capability))
        for column in columns
    )
    return _Row(capability, known.gpus[:_GPUS] if known else (), tuple(cells))


def _cells(rows: Iterable[Target]) -> list[tuple[str, Target]]:
    """Each id once, with its platforms where they are others than linux/amd64 alone, and one of its rows."""
    by_id: dict[str, list[Target]] = {}
    for row in rows:
        by_id.setdefault(str(row.id), []).append(row)
    return [(f"`{id}`{_platforms(same)}", same[0]) for id, same in by_id.items()]


def _platforms(rows: Sequence[Target]) -> str:
    machines = sorted(row.platform.rpartition("/")[2] for row in rows)
    return "" if machines == ["amd64"] else f" {', '.join(machines)}"


def _holds(row: Target) -> str:
    words = [*map(_word, row.sass), *(f"PTX {_word(arch)}" for arch in row.ptx)]
    return ", ".join(words)


def _word(arch: Arch) -> str:
    return f"{arch.capability}{arch.suffix}"
