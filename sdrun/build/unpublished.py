"""Which targets a registry lacks: what a CI run still has to build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sdrun.build.image import Recipe
from sdrun.build.source import fetch
from sdrun.core.decode import Malformed
from sdrun.core.engine import Engine
from sdrun.core.labels import RECIPE
from sdrun.core.oci import Published, read_index
from sdrun.core.target import Base, Target
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry.client import Registry, open_registry
from sdrun.render.dockerfile import render


def unpublished(
    rows: Sequence[Target],
    engines: Mapping[str, Engine],
    bases: Mapping[str, Base],
    registry: str,
    cache: Path,
    say: Callable[[str], None],
) -> list[Target]:
    """Those of `rows` that the registry's index has no image of. Raises VerificationFailed (`tag-taken`) where an image was
    published from another recipe: its tag is never moved, so building it anew would be in vain; UsageProblem (`bad-reference`),
    BadConfiguration (`bad-index`) and what a registry or a download raises."""
    client, _ = open_registry(registry)
    try:
        known = {name: _published(client, name) for name in dict.fromkeys(row.engine for row in rows)}
    finally:
        client.close()
    missing, other = [], []
    for row in rows:
        found = known[row.engine].get((str(row.id), row.platform))
        if found is None:
            missing.append(row)
        elif found.annotations.get(RECIPE) != _recipe(row, engines[row.engine], bases[row.base], cache, say):
            other.append(row)
    if other:
        raise VerificationFailed(
            f"{', '.join(row.tag for row in other[:5])}{' and others' if len(other) > 5 else ''} "
            f"{'was' if len(other) == 1 else 'were'} published from another recipe, and tags are never moved",
            "Give the engine another name in images/engines.yaml and images/targets.yaml (say, with .2 behind it): "
            "its images get tags of their own.",
            id="tag-taken",
        )
    return missing


def _published(registry: Registry, engine: str) -> Mapping[tuple[str, str], Published]:
    manifest = registry.find_manifest(engine)
    if manifest is None:
        return {}
    try:
        return {image.slot: image for image in read_index(manifest.document).images}
    except Malformed as fault:
        raise BadConfiguration(
            f"{registry.repository}:{engine} holds no index of sdrun: {fault}",
            "Name the repository that sdrun publish wrote to.",
            id="bad-index",
        ) from None


def _recipe(row: Target, engine: Engine, base: Base, cache: Path, say: Callable[[str], None]) -> str:
    return Recipe(row, engine, base, render(row, engine, base), fetch(engine, cache, say)).digest
