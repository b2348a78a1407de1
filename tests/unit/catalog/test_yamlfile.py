"""YAML that is well-formed and yet none of ours: tags, aliases, depth, keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.catalog.yamlfile import YamlFile
from sdrun.errors import BadConfiguration

WHOLE = [
    ("a: [1, 2.5, true, null, x, '5']", {"a": [1, 2.5, True, None, "x", "5"]}),
    ("a: !!str 5", {"a": "5"}),
    ("a: &b {c: 1}\nd: *b", {"a": {"c": 1}, "d": {"c": 1}}),
    ("[" * 100 + "]" * 100, None),
    ("", None),
]


@pytest.mark.parametrize(("text", "value"), WHOLE)
def test_what_is_read(text: str, value: object) -> None:
    file = YamlFile(Path("f.yaml"), text)
    file.finish()
    assert value is None or file.data == value


FAULTS = [
    ("a: 1\nb: !own x", "f.yaml:2: b: cannot be read as !own"),
    ("b: !!python/object:os.system x", "f.yaml:1: b: cannot be read as python/object:os.system"),
    ("b: !!int x", "b: cannot be read as int"),
    ("b: !!bool x", "b: cannot be read as bool"),
    ("b: !!timestamp x", "b: cannot be read as timestamp"),
    ("b: 2024-13-45", "b: cannot be read as timestamp"),
    ("b: =", "b: cannot be read as value"),
    ("b: " + "9" * 5000, "b: cannot be read as int"),
    ("a:\n  ? [b]\n  : c", "a: has a list or mapping as a key"),
    ("a: &a [*a]", "is not YAML: an alias stands for itself"),
    ("[" * 50_000, "is not YAML: it is nested too deeply"),
    ("- " * 50_000, "is not YAML: it is nested too deeply"),
    ("a: [b", "at line 1, column 4"),
]


@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        YamlFile(Path("f.yaml"), text).finish()
    assert said in caught.value.message
    assert "unicode string" not in caught.value.message
