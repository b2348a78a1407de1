"""images/build_failures.yaml: what a failed build says, and what it means."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sdrun.catalog.diagnoses import Verdict, verdict_for
from sdrun.catalog.rows import each, fields
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed, check, parse_at
from sdrun.core.diagnosis import Cause, Pattern, Scanner, first_cause
from sdrun.errors import BY_EXIT_CODE
from sdrun.resources import images_dir

_KEYS = ("key", "id", "exit_code", "texts", "message", "remedy", "source")


@cache
def build_failures(path: Path | None = None) -> tuple[Cause, ...]:
    """The rows in order of preference; raises BadConfiguration naming every fault with its line."""
    file = YamlFile(path or images_dir() / "build_failures.yaml")
    causes: list[Cause] = []
    with file.collecting():
        causes += each(file, fields(file, file.data, "", ("causes",)), "causes", _KEYS, _cause)
    file.finish()
    return tuple(causes)


def _cause(row: Fields) -> Cause:
    exit_code = row.get("exit_code", int)
    if exit_code not in BY_EXIT_CODE:
        raise Malformed(row.key("exit_code"), f"{exit_code} is not an exit code of the contract")
    key = row.get("key", str)
    return Cause(
        key=key,
        id=row.find("id", str) or key,
        exit_code=exit_code,
        message=row.get("message", str),
        remedy=row.get("remedy", str),
        source=row.get("source", str),
        where="build",
        texts=tuple(parse_at(Pattern.parse, check(text, str, path), path) for path, text in row.items("texts")),
    )


def diagnose_build(log: bytes) -> Verdict | None:
    """The verdict for a failed build's whole log, or None where no row knows it."""
    causes = build_failures()
    scanner = Scanner({cause.key: cause.texts for cause in causes})
    scanner.scan(log)
    match = first_cause(causes, scanner.found, -1, False)
    return verdict_for(*match) if match else None
