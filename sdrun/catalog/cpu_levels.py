"""images/cpu_levels.yaml: what a processor must have to run code of an x86-64 level."""

from __future__ import annotations

from functools import cache

from sdrun.catalog.rows import each, fields, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.resources import images_dir


@cache
def load_cpu_levels() -> dict[str, frozenset[str]]:
    """Every level, lowest first, with all the flags it needs, those of the levels below it included."""
    file = YamlFile(images_dir() / "cpu_levels.yaml")
    levels: dict[str, frozenset[str]] = {}
    flags: frozenset[str] = frozenset()
    with file.collecting():
        top = fields(file, file.data, "", ("levels",))
        for level, own in each(
            file, top, "levels", ("level", "flags"), lambda row: (row.get("level", str), texts(row, "flags"))
        ):
            flags |= frozenset(own)
            levels[level] = flags
    file.finish()
    return levels
