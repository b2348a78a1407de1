"""`sdrun publish`: proven images into a registry, and the index by which hosts find theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdrun.build.publishing import Outcome, Publication
    from sdrun.registry.archive import Compression
    from sdrun.registry.indexing import Written

STEPS, SIGNING = "Steps of a CI pipeline", "Signing"
SCHEMA = "sdrun.publish/v1"


def command(
    ctx: typer.Context,
    selector: Annotated[str | None, typer.Argument(help="A glob over target ids; see sdrun targets.")] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="REF", help="HOST[:PORT]/PATH; default: SDRUN_REGISTRY.")
    ] = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="Take local images only; build none.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out targets that the same recipe has published already.")
    ] = False,
    compression: Annotated[
        str, typer.Option("--compression", help="Of layers: both; or zstd (from Docker 23, containerd 1.5 on); or gzip.")
    ] = "both",
    by_digest: Annotated[
        bool, typer.Option("--by-digest", help="Push; set no tag and write no index.", rich_help_panel=STEPS)
    ] = False,
    pushed: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", metavar="FILE.json", help="Tag and index what --by-digest --json printed.", rich_help_panel=STEPS
        ),
    ] = None,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Write the index again, from the images.", rich_help_panel=STEPS)
    ] = False,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Of --index-only; default: the catalogue's newest.", rich_help_panel=STEPS)
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Sign with this key, by cosign.", rich_help_panel=SIGNING)] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign with the CI job's identity, by cosign.", rich_help_panel=SIGNING)
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.publish/v1.")] = False,
) -> None:
    """Publish images: build, prove, push by digest, describe, sign, tag, index; print their references.

    A tag is given once and never moved. Cut off at any point, the old index is whole; publishing again goes on.
    """
    from sdrun.errors import Interrupted
    from sdrun.launch.stopping import stoppable

    console: Console = ctx.obj
    _check_ways(selector, pushed, index_only)
    publication = _publication(console, registry, compression, None if dry_run else key, keyless and not dry_run)
    try:
        with stoppable():
            if index_only:
                written = _indexed(console, publication, engine or _newest_engine(), [], refresh=True, dry_run=dry_run)
                _print(console, publication, [], [written], as_json)
            elif selector is not None and dry_run:
                _print_dry(console, publication, selector)
            else:
                outcomes = _outcomes(console, publication, selector, pushed or [], no_build, skip_existing)
                _tag_and_index(console, publication, outcomes, by_digest=by_digest, dry_run=dry_run, as_json=as_json)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the index is as it was, or as it should be", "Run the same command again.") from None
    finally:
        publication.registry.close()


def _print_dry(console: Console, publication: Publication, selector: str) -> None:
    from sdrun.cli.publishing import dry_lines

    console.result("\n".join(dry_lines(console, publication, selector)))


def _outcomes(
    console: Console, publication: Publication, selector: str | None, pushed: list[Path], no_build: bool, skip_existing: bool
) -> list[Outcome]:
    """The images, pushed by digest now or before."""
    from sdrun.cli.publishing import Pushing, read_pushed

    if selector is None:
        return read_pushed(publication, pushed)
    return Pushing(console, publication, no_build, skip_existing).all(selector)


def _tag_and_index(
    console: Console, publication: Publication, outcomes: list[Outcome], *, by_digest: bool, dry_run: bool, as_json: bool
) -> None:
    from sdrun.build.publishing import tag_image

    indexes: list[Written] = []
    if not by_digest:
        if not dry_run:
            outcomes = [tag_image(outcome, publication) for outcome in outcomes]
        for name in sorted({outcome.engine for outcome in outcomes}):
            own = [outcome for outcome in outcomes if outcome.engine == name]
            indexes.append(_indexed(console, publication, name, own, refresh=False, dry_run=dry_run))
    _print(console, publication, outcomes, indexes, as_json)


def _check_ways(selector: str | None, pushed: list[Path] | None, index_only: bool) -> None:
    from sdrun.errors import UsageProblem

    said = [name for name, there in (("SELECTOR", selector), ("--from", pushed), ("--index-only", index_only)) if there]
    if len(said) != 1:
        what = f"there are {' and '.join(said)}" if said else "there is none of them"
        raise UsageProblem(f"publish takes one of SELECTOR, --from and --index-only; {what}", "See: sdrun publish --help")


def _publication(console: Console, registry: str | None, compression: str, key: str | None, keyless: bool) -> Publication:
    """Where and how. Raises UsageProblem for what cannot be."""
    from sdrun.build.publishing import Publication
    from sdrun.errors import UsageProblem
    from sdrun.registry.client import open_registry
    from sdrun.registry.cosign import Signer, find_program
    from sdrun.registry.patience import Patience

    named = registry or console.settings().registry
    if named is None:
        raise UsageProblem("no registry is named", "Name it: --registry registry.example/team/sdrun, or SDRUN_REGISTRY.")
    forms: dict[str, tuple[Compression, ...]] = {"both": ("zstd", "gzip"), "zstd": ("zstd",), "gzip": ("gzip",)}
    if compression not in forms:
        raise UsageProblem(f"--compression must be both, zstd or gzip, not {compression[:40]!r}", "Choose one of them.")
    if key is not None and keyless:
        raise UsageProblem("--key and --keyless exclude each other", "Choose one of them.")
    where, reference = open_registry(named, Patience(say=console.note))
    if reference.tag is not None or reference.digest is not None:
        raise UsageProblem(f"--registry names a repository, not one image: {named}", f"Write {reference.repository}.")
    signer = Signer(find_program("signing was asked for"), key) if key is not None or keyless else None
    return Publication(where, forms[compression], signer, signer.public_key() if signer else None, console.note)


def _newest_engine() -> str:
    from sdrun.catalog.engines import engines

    return max(engines().values(), key=lambda row: row.epoch).name


def _indexed(
    console: Console, publication: Publication, engine: str, own: Sequence[Outcome], *, refresh: bool, dry_run: bool
) -> Written:
    from sdrun.build.publishing import sign
    from sdrun.registry.indexing import write_index

    images = [outcome.image for outcome in own]
    written = write_index(publication.registry, engine, images, console.note, refresh=refresh, dry_run=dry_run)
    if not dry_run:
        sign(publication, written.digest)
    how = "unchanged" if not written.changed else "would be written" if dry_run else "written"
    console.note(f"index of {engine}: {len(written.images)} images, {how}; tags {', '.join(written.tags) or 'none'}")
    return written


def _print(
    console: Console, publication: Publication, outcomes: Sequence[Outcome], indexes: Sequence[Written], as_json: bool
) -> None:
    repository = publication.registry.repository
    if not as_json:
        references = [repository.at(outcome.image.digest) for outcome in outcomes]
        console.result("\n".join(references or [repository.at(written.digest) for written in indexes]))
        return
    from sdrun.core.index import image_to_json

    rows = [
        {
            **image_to_json(outcome.image.row(repository)),
            "digest": outcome.image.digest,
            "sent_bytes": outcome.sent,
            "tagged": outcome.tagged,
            "signed": outcome.signed,
            "seconds": outcome.seconds,
        }
        for outcome in outcomes
    ]
    written = [
        {"digest": row.digest, "tags": list(row.tags), "images": len(row.images), "changed": row.changed} for row in indexes
    ]
    console.document({"schema": SCHEMA, "registry": str(repository), "images": rows, "indexes": written})
