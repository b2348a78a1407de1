"""Values as YAML scalars that every reader takes for the text they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[a-z][a-z0-9]*(?:[-/][a-z0-9]+)*")
# What YAML 1.1 and 1.2 readers make of bare words.
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def scalar(value: object) -> str:
    """`value` as text: bare where that is the same to every reader, else in double quotes; `null` for None. A JSON string is a
    YAML string (YAML 1.2, section 10.2)."""
    if value is None:
        return "null"
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text not in _NOT_TEXT else json.dumps(text, ensure_ascii=False)


def flow_list(values: Iterable[object]) -> str:
    """`[a, "8.9"]`."""
    return f"[{', '.join(scalar(value) for value in values)}]"
