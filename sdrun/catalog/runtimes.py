"""images/runtimes.yaml: which container runtimes read what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sdrun.core.host import RuntimeFacts
from sdrun.core.index import Index
from sdrun.core.layers import RuntimeVersion, readable, version_of

_SCHEMA = "sdrun.runtimes/v1"


def readable_here(index: Index, runtime: RuntimeFacts | None) -> Index:
    """The index as the container runtime `runtime` should see it: see `sdrun.core.layers.readable`."""
    if all(image.layers != "zstd" for image in index.images):
        return index
    return readable(index, runtime, zstd_layers_from())


@cache
def zstd_layers_from(path: Path | None = None) -> Mapping[str, RuntimeVersion]:
    """By runtime the first version that reads layers packed with zstd. Raises BadConfiguration with all faults."""
    from sdrun.catalog.rows import each, fields
    from sdrun.catalog.yamlfile import YamlFile
    from sdrun.core.decode import Malformed
    from sdrun.resources import images_dir

    file = YamlFile(path or images_dir() / "runtimes.yaml")
    found: dict[str, RuntimeVersion] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("schema", "runtimes"))
        if (schema := top.get("schema", str)) != _SCHEMA:
            raise Malformed("schema", f"must be {_SCHEMA!r}, not {schema[:40]!r}")
        for name, version in each(
            file,
            top,
            "runtimes",
            ("name", "zstd_layers_from"),
            lambda row: (row.text("name"), row.parse("zstd_layers_from", version_of)),
        ):
            if name in found:
                raise Malformed("runtimes", f"names {name} twice")
            found[name] = version
    file.finish()
    return found
