"""Tables of measurements in Markdown: a template of templates/results/ for each, given the recorded results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdrun.resources import templates_dir

Result = Mapping[str, Any]


class NoResult(ValueError):
    """A table has nothing to show yet: no result of that measurement is recorded."""


def result_names() -> list[str]:
    """The tables there are."""
    return sorted(path.name.removesuffix(".md.j2") for path in (templates_dir() / "results").glob("*.md.j2"))


def result_table(name: str, results: Mapping[str, Result]) -> str:
    """The table `name` in Markdown, ending with a line break. `results` are recorded documents by their file's name without its
    ending. Raises NoResult where no result of the table's measurement is recorded, ValueError where one has another form than
    the template knows."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.exceptions import UndefinedError

    environment = Environment(
        loader=FileSystemLoader(templates_dir() / "results"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"mb": _megabytes, "seconds": _seconds, "ratio": _ratio}
    try:
        text = environment.get_template(f"{name}.md.j2").render(results=results, of=_finder(results))
    except UndefinedError as fault:
        raise ValueError(f"the table {name} cannot be written from bench/results: {fault.message}") from None
    return text.rstrip("\n") + "\n"


def _finder(results: Mapping[str, Result]) -> Callable[..., list[Result]]:
    def of(measured: str, having: str = "") -> list[Result]:
        """The results of one measurement, one a device, in the order of their file names; those whose figures have the key
        `having`, where one is named."""
        found = [document for _, document in sorted(results.items()) if document.get("measured") == measured]
        found = [document for document in found if not having or having in document["figures"]]
        if not found:
            raise NoResult(f"bench/results holds no result of {measured}")
        return found

    return of


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def read_results(folder: Path) -> dict[str, Result]:
    """Every recorded result of a folder by its file's name without its ending. Raises ValueError for a file that is no JSON."""
    import json

    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as fault:
            raise ValueError(f"{path.name} is no JSON: {fault}") from None
        if isinstance(document, dict):
            found[path.stem] = document
    return found
