"""Models for people (tables, a description) and for programs (JSON documents)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sdrun.core.model import Catalogue, Model, ModelFile
from sdrun.core.size import size_text
from sdrun.models.names import Names, Pin, StoredModel

COLUMNS = ("NAME", "SIZE", "MEMORY", "PINNED", "HERE", "LICENCE")
Verdicts = Mapping[str, str]


def table(catalogue: Catalogue, names: Names, here: bool) -> str:
    """One line a model. PINNED counts the files whose sha256 the catalogue knows; `+n` were recorded at the first download."""
    held = {model.name: model for model in names.all()}
    rows = [_cells(model, held.get(model.name), names) for model in catalogue.values() if not here or model.name in held]
    own = (model for model in held.values() if model.name not in catalogue)
    rows += [(model.name, _total(model), "-", f"{len(model.files)}/{len(model.files)}", "yes", "your own") for model in own]
    lines = [COLUMNS, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(model: Model, stored: StoredModel | None, names: Names) -> tuple[str, ...]:
    recorded = sum(file.sha256 is None and _pin(file, names) is not None for file in model.files.values())
    pinned = f"{model.pinned}/{len(model.files)}" + (f" +{recorded}" if recorded else "")
    size = size_text(model.bytes) if model.bytes else _total(stored) if stored else "not known"
    licence = model.licence.name + (", gated" if model.gated else "")
    here = "yes" if _here(model, stored) else "-"
    return model.name, size, f"{model.memory_mib / 1024:.1f} GiB", pinned, here, licence


def _here(model: Model, stored: StoredModel | None) -> bool:
    """Whether a run needs no network for it."""
    return model.shipped is not None or (stored is not None and stored.serves(model))


def _total(model: StoredModel) -> str:
    return size_text(sum(file.bytes for file in model.files.values()))


def _pin(file: ModelFile, names: Names) -> Pin | None:
    return None if file.from_hub is None else names.pin(file.from_hub)


def catalogue_document(catalogue: Catalogue, names: Names, here: bool) -> dict[str, object]:
    """Schema sdrun.models/v1: every model as `models show` tells it."""
    held = {model.name: model for model in names.all()}
    rows = [model_document(model, catalogue, names) for name, model in catalogue.items() if not here or name in held]
    rows += [stored_document(model, names) for model in held.values() if model.name not in catalogue]
    return {"schema": "sdrun.models/v1", "store": str(names.root), "models": rows}


def model_document(model: Model, catalogue: Catalogue, names: Names) -> dict[str, object]:
    """One model of the catalogue, with what the store adds: files fetched, pins recorded."""
    stored = names.get(model.name)
    row = catalogue.rows[model.row]
    return {
        "name": model.name,
        "title": model.title,
        "aliases": list(row.aliases),
        "family": model.family,
        "quantisation": model.quantisation,
        "default": row.default == model.quantisation,
        "output": model.output,
        "files": [_file(role, file, names) for role, file in model.files.items()],
        "bytes": model.bytes,
        "licence": model.licence.name,
        "licence_page": model.licence.page,
        "commercial_use": model.licence.commercial,
        "accept_licence": model.licence.accept,
        "gated": model.gated,
        "defaults": asdict(model.defaults) if model.defaults else None,
        "engine_args": list(model.engine_args),
        "memory_mib": model.memory_mib,
        "here": _here(model, stored),
        "shipped": model.shipped is not None,
    }


def _file(role: str, file: ModelFile, names: Names) -> dict[str, object]:
    source, pin = file.from_hub, _pin(file, names)
    return {
        "role": role,
        "repository": source.repository if source else None,
        "file": source.path if source else file.name,
        "revision": (source.revision if source else None) or (pin.revision if pin else None),
        "bytes": file.bytes or (pin.bytes if pin else None),
        "sha256": file.sha256 or (pin.sha256 if pin else None),
        "pinned_by": "catalogue" if file.sha256 else "first download" if pin else None,
        "gated": file.gated,
    }


def stored_document(model: StoredModel | None, names: Names) -> dict[str, object]:
    """A model that is only in the store, in the same shape; what nobody knows of it is null."""
    assert model is not None  # the caller looked it up
    files = [
        {
            "role": role,
            "repository": file.repository,
            "file": file.path or file.name,
            "revision": file.revision,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "pinned_by": "first download" if file.repository else "import",
            "gated": False,
        }
        for role, file in model.files.items()
    ]
    return {
        "name": model.name,
        "title": model.name,
        "aliases": [],
        "family": model.family or None,
        "quantisation": model.quantisation or None,
        "files": files,
        "bytes": sum(file.bytes for file in model.files.values()),
        "licence": None,
        "gated": False,
        "defaults": None,
        "memory_mib": None,
        "here": True,
    }


def description(document: Mapping[str, object]) -> str:
    """A model in lines: what it is, what may be done with it, its files."""
    lines = [f"{document['name']}: {document['title']}"]
    for key in ("aliases", "family", "quantisation"):
        value = document.get(key)
        lines.append(f"  {key:13} {', '.join(map(str, value)) if isinstance(value, list) else value or '-'}")
    lines.append(f"  licence       {document['licence'] or '-'}{_conditions(document)}")
    if document.get("memory_mib"):
        lines.append(f"  GPU memory    {document['memory_mib']} MiB with all files loaded")
    defaults = document.get("defaults")
    if isinstance(defaults, dict):
        known = (f"{name.replace('_', ' ')} {value}" for name, value in defaults.items() if value is not None)
        lines.append(f"  defaults      {', '.join(known)}")
    size = document.get("bytes")
    lines.append(f"  files         {size_text(size) if isinstance(size, int) else 'of unknown size'}, " + _where(document))
    files = document["files"]
    for file in files if isinstance(files, list) else []:
        lines += _file_lines(file)
    return "\n".join(lines)


def _where(document: Mapping[str, object]) -> str:
    if document.get("shipped"):
        return "shipped with sdrun"
    return "in the store" if document.get("here") else f"not here yet: sdrun models pull {document['name']}"


def _conditions(document: Mapping[str, object]) -> str:
    words = [f"commercial use {document['commercial_use']}"] if "commercial_use" in document else []
    if document.get("gated"):
        words.append("gated")
    if document.get("licence_page"):
        words.append(str(document["licence_page"]))
    return f" ({'; '.join(words)})" if words else ""


def _file_lines(file: Mapping[str, object]) -> list[str]:
    size = file["bytes"]
    where = f"{file['repository']}/" if file["repository"] else ""
    first = f"    {file['role']!s:9} {where}{file['file']}" + (f", {size_text(size)}" if isinstance(size, int) else "")
    pin = f"sha256 {file['sha256']} ({file['pinned_by']})" if file["sha256"] else "not pinned: recorded at the first download"
    revision = [f"{'':14}revision {file['revision']}"] if file["revision"] else []
    return [first, *revision, f"{'':14}{pin}"]


def verdict_document(found: Sequence[StoredModel], verdicts: Verdicts) -> dict[str, object]:
    """Schema sdrun.models-verify/v1."""
    rows = [
        {
            "name": model.name,
            "files": [
                {"role": role, "file": file.name, "sha256": file.sha256, "status": verdicts[file.sha256]}
                for role, file in model.files.items()
            ],
        }
        for model in found
    ]
    return {"schema": "sdrun.models-verify/v1", "models": rows}


def verdict_text(found: Sequence[StoredModel], verdicts: Verdicts) -> str:
    """One line a file."""
    return "\n".join(
        f"{model.name}  {role}  {file.name}  {verdicts[file.sha256]}" for model in found for role, file in model.files.items()
    )
