"""What stands behind `sdrun publish SELECTOR`: each target's image taken from the local runtime or built, and pushed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdrun.build.publishing import Outcome, Publication, check_runs, published_already, push_image, pushed_before, recipe_of
from sdrun.catalog.engines import engines
from sdrun.cli.console import Console
from sdrun.cli.selection import selected
from sdrun.core.oci import tag_of
from sdrun.core.size import size_text
from sdrun.core.target import Target
from sdrun.errors import BadConfiguration, RuntimeUnavailable
from sdrun.runtime.protocol import ContainerRuntime, LocalImage


def rows_here(selector: str) -> list[Target]:
    """The targets of the selector that this machine builds."""
    from sdrun.build.choice import on_platform
    from sdrun.probe.machine import platform_of

    return on_platform(selected(selector)[1], platform_of(os.uname().machine))


def tag_of_target(target: Target) -> str:
    """The tag its image is published under."""
    return tag_of(target.engine, str(target.id), target.platform)


class Pushing:
    """Pushes what a selector names. `no_build`: images that are not here are missing; `skip_existing`: those that the same
    recipe has published already are neither built nor pushed."""

    def __init__(self, console: Console, publication: Publication, no_build: bool, skip_existing: bool) -> None:
        self._console = console
        self._publication = publication
        self._no_build = no_build
        self._skip_existing = skip_existing

    def all(self, selector: str) -> list[Outcome]:
        """One outcome a target, in the order of the catalogue."""
        from sdrun.runtime import connect

        rows = rows_here(selector)
        for target in rows:
            check_runs(target)  # before any of them is built or pushed
        runtime = connect(self._console.settings().runtime)
        return [self._one(target, runtime) for target in rows]

    def _one(self, target: Target, runtime: ContainerRuntime) -> Outcome:
        if self._skip_existing and (there := self._there(target)) is not None:
            self._console.note(f"{tag_of_target(target)}: published already by the same recipe")
            return there
        outcome = push_image(self._image(target, runtime), runtime, self._publication)
        how = f"{size_text(outcome.sent)} sent" if outcome.sent else "nothing had to be sent"
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome.seconds.items())
        self._console.note(f"{outcome.image.tag}: {outcome.image.digest[:19]}..., {how} ({steps})")
        return outcome

    def _there(self, target: Target) -> Outcome | None:
        recipe = recipe_of(target, self._console.note)
        return published_already(self._publication.registry, tag_of_target(target), recipe)

    def _image(self, target: Target, runtime: ContainerRuntime) -> LocalImage:
        from sdrun.build.image import REPOSITORY

        reference = f"{REPOSITORY}:{target.tag}"
        if not self._no_build:
            self._build(target, runtime)
        image = runtime.image(reference)
        if image is None:
            raise RuntimeUnavailable(
                f"the local {runtime.name} has no image {reference}", f"Build it: sdrun build {target.id}", id="image-missing"
            )
        return image

    def _build(self, target: Target, runtime: ContainerRuntime) -> None:
        from sdrun.build.image import build
        from sdrun.catalog.targets import targets
        from sdrun.cli.build import Display, summary

        shown = Display(self._console)
        try:
            base = targets().bases[target.base]
            built = build(target, engines()[target.engine], base, runtime, say=self._console.note, on_step=shown.show)
        finally:
            shown.end()
        self._console.note(summary(built))


def read_pushed(publication: Publication, files: Sequence[Path]) -> list[Outcome]:
    """What earlier runs with --by-digest --json have pushed. The files only name digests; facts are read from the registry.
    Raises BadConfiguration (`bad-digests`) for a file that is none of these."""
    from sdrun.catalog.jsonfile import Unreadable, read_json
    from sdrun.core.decode import Fields, Malformed
    from sdrun.core.reference import is_digest

    digests: dict[str, None] = {}
    for path in files:
        try:
            document = Fields(read_json(path))
            if document.get("schema", str) != "sdrun.publish/v1":
                raise Malformed("schema", "must be sdrun.publish/v1")
            for key, value in document.items("images"):
                digest = Fields(value, key).get("digest", str)
                if not is_digest(digest):
                    raise Malformed(f"{key}.digest", "must be sha256: and 64 hexadecimal digits")
                digests[digest] = None
        except (Unreadable, Malformed) as fault:
            text = str(fault) if isinstance(fault, Unreadable) else f"{path}: {fault}"
            raise BadConfiguration(text, "Name what sdrun publish --by-digest --json printed.", id="bad-digests") from None
    return [pushed_before(publication.registry, digest) for digest in digests]


def dry_lines(console: Console, publication: Publication, selector: str) -> Iterator[str]:
    """What would be done with each target, a line each."""
    from sdrun.build.image import REPOSITORY
    from sdrun.catalog.gpu_runs import gpu_runs
    from sdrun.core.gpurun import awaited
    from sdrun.registry.tagging import content_of
    from sdrun.runtime import connect

    runtime = connect(console.settings().runtime)
    for target in rows_here(selector):
        image, tag = runtime.image(f"{REPOSITORY}:{target.tag}"), tag_of_target(target)
        there = publication.registry.find_manifest(tag)
        if awaited(target, gpu_runs()):
            what = "has pruned libraries that no GPU has run: would be refused, and all that is named with it"
        elif there is None:
            what = "would be pushed and tagged" if image else "would be built, pushed and tagged"
        elif image is None or image.id in (content_of(there), there.digest):
            what = f"is there already ({there.digest[:19]}...)"
        else:
            what = f"is there with other content ({there.digest[:19]}...): would be refused"
        yield f"{tag}: {what}"
