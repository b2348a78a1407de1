"""images/diagnoses.yaml: what a failed run says, and what it means. Turns a matched row into a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed, check, parse_at
from sdrun.core.diagnosis import Cause, Finding, Pattern, Scanner, first_cause
from sdrun.errors import BY_EXIT_CODE, SdrunError, from_refusal
from sdrun.resources import images_dir

BUILT_IN = {"gpu": "this GPU", "sm_selector": "'*'", "exit_code": "unknown"}
WHERE = ("engine", "runtime", "both")
_GAP = re.compile(r"\{([a-z_]+)\}")
_KEYS = frozenset(
    {"key", "id", "exit_code", "where", "texts", "exits", "out_of_memory", "explains_cpu_run"}
    | {"message", "remedy", "defaults", "source"}
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run failed. `evidence` are the lines of the log it was read from; `tail` the last lines as they were written."""

    id: str
    exit_code: int
    message: str
    remedy: str
    evidence: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()

    def to_error(self) -> SdrunError:
        """The error to end with; its detail shows the evidence above the raw tail."""
        error = from_refusal(self.id, self.exit_code, self.message, self.remedy)
        above = [line for line in self.evidence if line not in self.tail]
        lines = above + (["..."] if above and self.tail else []) + list(self.tail)
        error.detail = "\n".join(lines) or None
        return error


@dataclass(frozen=True, slots=True)
class Table:
    """The rows in order of preference, and the texts that show on which device the engine computed."""

    causes: tuple[Cause, ...]
    device: Pattern
    no_gpu: tuple[Pattern, ...]
    said_by: Mapping[str, tuple[Cause, ...]] = field(default_factory=dict)

    def patterns(self, where: str) -> dict[str, tuple[Pattern, ...]]:
        """The texts of the rows that `where` (`engine` or `runtime`) can say, by the rows' keys."""
        return {cause.key: cause.texts for cause in self.said_by[where] if cause.texts}


@cache
def load_diagnoses() -> Table:
    """The project's own table; raises BadConfiguration naming every fault with its line."""
    return read_diagnoses(images_dir() / "diagnoses.yaml")


def read_diagnoses(path: Path) -> Table:
    """The table in the file at `path`; raises BadConfiguration naming every fault with its line."""
    file = YamlFile(path)
    causes: list[Cause] = []
    proof: tuple[Pattern, tuple[Pattern, ...]] | None = None
    with file.collecting():
        top = Fields(file.data)
        with file.collecting():
            proof = _proof(Fields(top.get("proof", dict), "proof"))
        for key, value in top.items("causes"):
            with file.collecting():
                causes.append(_cause(Fields(value, key), check(value, dict, key)))
        for key in {cause.key for cause in causes}:
            if sum(cause.key == key for cause in causes) > 1:
                file.fault("causes", f"two rows have the key {key!r}")
    file.finish()
    assert proof is not None  # a missing proof was a fault
    said_by = {side: tuple(cause for cause in causes if cause.where in (side, "both")) for side in ("engine", "runtime")}
    return Table(tuple(causes), proof[0], proof[1], said_by)


def _proof(row: Fields) -> tuple[Pattern, tuple[Pattern, ...]]:
    device = row.parse("device", Pattern.parse)
    if not {"index", "name", "capability"} <= device.names:
        raise Malformed(row.key("device"), "must have the gaps {index}, {name} and {capability}")
    return device, _patterns(row, "no_gpu")


def _patterns(row: Fields, name: str) -> tuple[Pattern, ...]:
    return tuple(parse_at(Pattern.parse, check(text, str, key), key) for key, text in row.items(name, optional=True))


def _cause(row: Fields, raw: Mapping[str, object]) -> Cause:
    if unknown := sorted(set(raw) - _KEYS):
        raise Malformed(row.key(unknown[0]), "is not a known key")
    key = row.get("key", str)
    defaults = Fields(row.find("defaults", dict) or {}, row.key("defaults"))
    cause = Cause(
        key=key,
        id=row.find("id", str) or key,
        exit_code=row.get("exit_code", int),
        message=row.get("message", str),
        remedy=row.get("remedy", str),
        source=row.get("source", str),
        where=row.find("where", str) or "engine",
        texts=_patterns(row, "texts"),
        exits=tuple(check(code, int, path) for path, code in row.items("exits", optional=True)),
        out_of_memory=row.find("out_of_memory", bool) or False,
        explains_cpu_run=row.find("explains_cpu_run", bool) or False,
        defaults={name: defaults.get(name, str) for name in row.find("defaults", dict) or {}},
    )
    _consistent(cause, row)
    return cause


def _consistent(cause: Cause, row: Fields) -> None:
    if cause.exit_code not in BY_EXIT_CODE or cause.exit_code in (1, 130):
        raise Malformed(row.key("exit_code"), f"{cause.exit_code} is not an exit code of a verdict")
    if cause.where not in WHERE:
        raise Malformed(row.key("where"), f"must be one of {', '.join(WHERE)}")
    if not (cause.texts or cause.exits or cause.out_of_memory):
        raise Malformed(row.key("texts"), "a row needs texts, exits or out_of_memory")
    known = set(cause.defaults) | set(BUILT_IN)
    if cause.texts:
        known |= frozenset.intersection(*(text.names for text in cause.texts))
    for name in ("message", "remedy"):
        for gap in _GAP.findall(getattr(cause, name)):
            if gap not in known:
                raise Malformed(row.key(name), f"{{{gap}}} is a gap of not every text and has no default")


def verdict_for(
    cause: Cause, finding: Finding | None, context: Mapping[str, str] | None = None, tail: Sequence[str] = ()
) -> Verdict:
    """The verdict of a row: its sentences filled from the text's gaps, `context` (gpu, sm_selector, exit_code) and defaults."""
    values = {**BUILT_IN, **(context or {}), **cause.defaults}
    if finding is not None:
        values.update({name: value for name, value in finding.values.items() if value})
    return Verdict(
        cause.id,
        cause.exit_code,
        _fill(cause.message, values),
        _fill(cause.remedy, values),
        (finding.line,) if finding is not None else (),
        tuple(tail),
    )


def _fill(sentence: str, values: Mapping[str, str]) -> str:
    # One pass, so that braces in a value are text; a full stop that ends the value is not doubled by the sentence's own.
    return _GAP.sub(lambda gap: values.get(gap[1], "unknown").rstrip(".") or "unknown", sentence)


def diagnose_runtime(text: str | bytes) -> Verdict | None:
    """What the container runtime meant by an error of its own (`docker`'s stderr, an API error's explanation), or None for a
    text that no row knows: then the caller says the text as it is."""
    table = load_diagnoses()
    scanner = Scanner(table.patterns("runtime"))
    scanner.scan(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    known = [cause for cause in table.said_by["runtime"] if cause.texts]
    match = first_cause(known, scanner.found, -1, False)
    return verdict_for(*match) if match else None
