"""Do these files make a model the engine can run? Told from their headers, before anything is started.

The engine itself answers late, after reading gigabytes, and obscurely: a FLUX model without any text encoder ends in a
segmentation fault, a wrong encoder in an abort or in a hundred lines about single tensors. What is refused here fails there
(tests/integration/models/test_file_sets.py), or draws without reading the prompt, as Chroma and Wan do without their encoder;
what is not recognised is left to the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from sdrun.core.family import Families, Family, Kind, find
from sdrun.core.fileset import ALL_IN_ONE, FilePart, FileSet, divide, full_names
from sdrun.core.header import Header
from sdrun.core.model import ModelFiles
from sdrun.errors import UsageProblem, VerificationFailed
from sdrun.models.headers import Damaged, read_header

# What a file for a part is usually called, for the remedy.
_EXAMPLES: Mapping[str, str] = {
    "clip_l": "clip_l.safetensors",
    "clip_g": "clip_g.safetensors",
    "t5xxl": "t5xxl.gguf",
    "llm": "text-encoder.gguf",
    "vae": "vae.safetensors",
    "tae": "tae.safetensors",
}


def check_file_set(files: ModelFiles, *, encodes: bool = False) -> FileSet:
    """The files of a model as one set, checked. `encodes`: a first picture will be turned into latents, so the autoencoder
    needs both its halves.

    Raises UsageProblem `model-files-incomplete` (a part is missing) or `model-files-mismatched` (a file is no part of this
    model), `model-file-unreadable`; VerificationFailed `model-file-damaged`.
    """
    from sdrun.catalog.families import families

    return file_set({role: _header(role, files) for role in files.files}, families(), files.name, encodes=encodes)


def _header(role: str, files: ModelFiles) -> Header:
    path = files.files[role]
    try:
        return read_header(path)
    except Damaged as fault:
        raise VerificationFailed(
            f"{path} is not a whole model file: {fault}",
            "Fetch the file again and compare its size and sha256 with its source.",
            id="model-file-damaged",
        ) from None
    except OSError as fault:
        raise UsageProblem(
            f"the model file {str(path)!r} cannot be read: {fault.strerror or fault}",
            "Check the path and its permissions.",
            id="model-file-unreadable",
        ) from None


def file_set(headers: Mapping[str, Header], families: Families, name: str, *, encodes: bool = False) -> FileSet:
    """As check_file_set, from headers by role; `name` is what the user calls the model."""
    size = sum(header.bytes for header in headers.values())
    if any(header.format == "checkpoint" for header in headers.values()):
        return FileSet(None, MappingProxyType({}), size, ("the files of a PyTorch checkpoint are not looked into",))
    parts = divide(headers, families)
    family = families.family_of(full_names(headers, families))
    if family is None:
        _check_is_model(headers, families)
        note = "the model's family is not recognised; its files were not checked against each other"
        return FileSet(None, MappingProxyType(parts), size, (note,))
    _check_kinds(headers, parts, family, families)
    _check_text(parts, family)
    _check_context(parts, headers, family, families)
    _check_vae(parts, family, encodes)
    return FileSet(family, MappingProxyType(parts), size, tuple(_notes(headers, parts, family)))


def _incomplete(message: str, *missing: str) -> UsageProblem:
    named = ",".join(f"{part}={_EXAMPLES.get(part, 'FILE')}" for part in missing)
    return UsageProblem(message, f"Name it too: --model diffusion=FILE,{named}.", id="model-files-incomplete")


def _mismatched(message: str, remedy: str) -> UsageProblem:
    return UsageProblem(message, remedy, id="model-files-mismatched")


def _check_is_model(headers: Mapping[str, Header], families: Families) -> None:
    """Refuses a file given as the model that is known to be something else."""
    for role in (ALL_IN_ONE, "diffusion"):
        if role in headers and (kind := families.kind_of(headers[role].tensors)) is not None:
            part = kind.parts[0] if kind.parts else ""
            hint = f"Give it as {part}=FILE, and the diffusion model as diffusion=FILE." if part else "Name the model itself."
            raise _mismatched(f"the file given as {role} is {kind.title}, not a diffusion model", hint)


def _check_kinds(headers: Mapping[str, Header], parts: Mapping[str, FilePart], family: Family, families: Families) -> None:
    """Refuses a file for a part that is known to be something else."""
    for role in headers:
        part = parts.get(role)
        if role in (ALL_IN_ONE, "diffusion") or part is None or part.kind is None:
            continue
        fitting = family.text.get(role) or (family.vae if role in ("vae", "tae") else ())
        if part.kind.name in fitting or not fitting:
            continue
        kinds = [families.by_kind[name] for name in fitting]
        wanted = " or ".join(kind.title for kind in kinds if role in kind.parts)
        message = f"the file given as {role} is {part.kind.title}; {family.title} needs {wanted or 'none'}"
        raise _mismatched(message, _move(part.kind))


def _move(kind: Kind) -> str:
    return f"Name another file; this one is for {' or '.join(kind.parts)}=." if kind.parts else "Name another file."


def _check_text(parts: Mapping[str, FilePart], family: Family) -> None:
    if family.text_rule == "lacking":
        raise UsageProblem(
            f"the model is {family.title}; the engine takes this family only as one file with everything in it",
            "Name the whole checkpoint: --model ./model.safetensors.",
            id="model-files-incomplete",
        )
    missing = [part for part in family.text if part not in parts]
    if not missing or family.text_rule == "inside":
        return
    if family.text_rule == "all" or len(missing) == len(family.text):
        raise _incomplete(f"{family.title} needs a text encoder; the file for {' or '.join(missing)} is missing", *missing)


def _check_context(parts: Mapping[str, FilePart], headers: Mapping[str, Header], family: Family, families: Families) -> None:
    """Refuses a language model of another width than the diffusion model was made for."""
    context, encoder = family.context, parts.get("llm")
    if context is None or encoder is None:
        return
    inner = next((t for t in full_names(headers, families) if t.name.endswith(context.tensor)), None)
    embedding = next(iter(find(encoder.tensors, ("embed_tokens.weight", "token_embd.weight"))), None)
    if inner is None or embedding is None:
        return
    wanted, rest = divmod(inner.size(context.axis), context.joined)
    if rest or embedding.size(0) != wanted:
        raise _mismatched(
            f"the text encoder given as llm is {embedding.size(0)} wide; this {family.title} model wants one of {wanted}",
            "Name the text encoder that belongs to this size of the model.",
        )


def _check_vae(parts: Mapping[str, FilePart], family: Family, encodes: bool) -> None:
    if not family.vae:
        return
    given = [parts[name] for name in ("tae", "vae") if name in parts]  # the tiny one is taken where both are given
    if not given:
        raise _incomplete(f"{family.title} needs an autoencoder; the file for vae is missing", "vae")
    if family.text_rule == "inside" and given[0].role == ALL_IN_ONE:
        return
    part = given[0]
    if not _has(part, "decoder."):
        raise _incomplete(f"the file for {part.name} holds no decoder", part.name)
    if encodes and not _has(part, "encoder."):
        raise _incomplete(f"a first picture needs the autoencoder's encoder, which the file for {part.name} lacks", part.name)


def _has(part: FilePart, start: str) -> bool:
    return any(tensor.name.startswith(start) or f"model.{start}" in tensor.name for tensor in part.tensors) or part.kind is None


def _notes(headers: Mapping[str, Header], parts: Mapping[str, FilePart], family: Family) -> Iterator[str]:
    for role in headers:
        if role not in (ALL_IN_ONE, "diffusion", "vae", "tae") and role not in family.text:
            yield f"{family.title} does not use the file given as {role}"
    if family.text_rule == "any":
        for part in family.text:
            if part not in parts:
                yield f"no {part} text encoder is given: the picture will follow the prompt less closely"
