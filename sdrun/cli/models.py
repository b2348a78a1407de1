"""`sdrun models`: what the catalogue offers, what the store holds, and the way from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.model import Model
    from sdrun.models.meter import Show
    from sdrun.models.names import StoredModel
    from sdrun.models.pull import Wishes
    from sdrun.models.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Such as flux, flux-q4, flux1-schnell:q4_0.")]


@app.callback()
def models_of() -> None:
    """The model catalogue and the local store."""


@app.command("ls")
def ls(
    ctx: typer.Context,
    here: Annotated[bool, typer.Option("--here", help="Only what is in the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the models: the catalogue's and the imported ones, what is pinned, what is here."""
    from sdrun.catalog.models import models
    from sdrun.cli.modeltext import catalogue_document, table

    console: Console = ctx.obj
    store = _store(console)
    if as_json:
        console.document(catalogue_document(models(), store.names, here))
    else:
        console.result(table(models(), store.names, here))


@app.command("show")
def show(ctx: typer.Context, name: Annotated[str, typer.Argument(help="A model's name.")], as_json: AsJson = False) -> None:
    """Show one model: files, pins, licence, defaults, memory."""
    from sdrun.catalog.models import models
    from sdrun.cli.modeltext import description, model_document, stored_document

    console: Console = ctx.obj
    store = _store(console)
    model = models().get(name)
    stored = None if model else store.names.get(name)
    if model is None and stored is None:
        from sdrun.models.naming import unknown

        raise unknown(name, models())
    document = model_document(model, models(), store.names) if model else stored_document(stored, store.names)
    if as_json:
        console.document({"schema": "sdrun.model/v1", **document})
    else:
        console.result(description(document))


@app.command("pull")
def pull(
    ctx: typer.Context,
    names: Names,
    accept: Annotated[bool, typer.Option("--accept-licence", help="Say yes to a licence that asks.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; fail where something is missing.")] = False,
    repin: Annotated[
        bool, typer.Option("--repin", help="Take what the hub has today where the catalogue pins nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch models into the store, checked; print their names. A stopped download goes on where it was."""
    from sdrun.catalog.models import models
    from sdrun.cli.downloads import Downloads
    from sdrun.models.naming import unknown
    from sdrun.models.pull import Wishes
    from sdrun.models.store import HUB_PREFIX

    console: Console = ctx.obj
    wanted: list[str | Model] = [text if text.startswith(HUB_PREFIX) else models().get(text) or text for text in names]
    for text in wanted:
        if isinstance(text, str) and not text.startswith(HUB_PREFIX):
            raise unknown(text, models())
    done = []
    for one in wanted:
        display = Downloads(console)
        store = _store(console, display.show, Wishes(offline=offline, accepted=accept, repin=repin))
        try:
            if isinstance(one, str):
                done.append(store.from_hub(one).name)
            else:
                done.append(store.have(one, again=repin).name)
        finally:
            display.close()
    if as_json:
        console.document(
            {"schema": "sdrun.models-pull/v1", "models": [_stored_document(_store(console), name) for name in done]}
        )
    else:
        console.result("\n".join(done))


@app.command("verify")
def verify(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: every model in the store.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read every file again and compare it with its sha256; exit 7 where one is damaged."""
    from sdrun.cli.modeltext import verdict_document, verdict_text
    from sdrun.models.store import store_errors

    console: Console = ctx.obj
    store = _store(console)
    found = [_held(store, name) for name in names] if names else store.names.all()
    with store_errors(store.root):
        verdicts = store.verify(found, console.note)
    if as_json:
        console.document(verdict_document(found, verdicts))
    elif found:
        console.result(verdict_text(found, verdicts))
    if any(state != "whole" for state in verdicts.values()):
        console.note("remedy: sdrun models pull NAME fetches a damaged file again; what was imported is imported again")
        raise typer.Exit(7)


@app.command("import")
def import_(
    ctx: typer.Context,
    files: Annotated[str, typer.Argument(metavar="FILE", help="A GGUF or safetensors file, or role=FILE,role=FILE.")],
    name: Annotated[str | None, typer.Option("--name", help="What it is to be called. Default: the file's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take local files into the store: hard links where that is possible, else copies; print the model's name."""
    from sdrun.catalog.models import models
    from sdrun.models.importing import import_model
    from sdrun.models.naming import own_files
    from sdrun.models.store import store_errors

    console: Console = ctx.obj
    store = _store(console)
    with store_errors(store.root):
        done = import_model(own_files(files), name, store.root, models())
    how = "linked" if all(done.linked.values()) else "copied"
    family = done.model.family or "of an unknown family"
    console.note(f"{done.model.name}: {family}, {done.model.quantisation or 'mixed types'}, {how}")
    if done.incomplete is not None:
        console.note(f"not a whole model yet: {done.incomplete.message}")
    if as_json:
        console.document({"schema": "sdrun.model/v1", **_stored_document(store, done.model.name)})
    else:
        console.result(done.model.name)


@app.command("rm")
def rm(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Models in the store.")] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Also files and unfinished downloads that no model refers to.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove models from the store; files that another model uses stay."""
    from sdrun.core.size import size_text
    from sdrun.errors import UsageProblem
    from sdrun.models.store import store_errors

    console: Console = ctx.obj
    store = _store(console)
    if not names and not unused:
        raise UsageProblem("nothing is named to be removed", "Name models, or say --unused.", id="usage")
    removed = [_held(store, name).name for name in names or ()]
    with store_errors(store.root):
        freed = store.remove(removed, unused)
    console.note(f"{size_text(freed)} freed")
    if as_json:
        console.document({"schema": "sdrun.models-rm/v1", "removed": removed, "freed_bytes": freed})
    elif removed:
        console.result("\n".join(removed))


def _store(console: Console, show: Show | None = None, wishes: Wishes | None = None) -> Store:
    from sdrun.models.store import Store, store_root
    from sdrun.resources import cache_root

    return Store(store_root(cache_root()), console.note, show, wishes)


def _held(store: Store, name: str) -> StoredModel:
    """The stored model of that name, in any of its spellings."""
    from sdrun.catalog.models import models
    from sdrun.errors import UsageProblem

    stored = store.names.get(models().full_name(name) or name)
    if stored is None:
        held = ", ".join(model.name for model in store.names.all()) or "nothing"
        raise UsageProblem(f"the store has no model {name[:80]!r}", f"It has {held}.", id="unknown-model")
    return stored


def _stored_document(store: Store, name: str) -> dict[str, object]:
    from sdrun.catalog.models import models
    from sdrun.cli.modeltext import model_document, stored_document

    model = models().get(name)
    return model_document(model, models(), store.names) if model else stored_document(store.names.get(name), store.names)
