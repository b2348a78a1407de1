"""images/models.yaml -> a Catalogue of Model values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast

from sdrun.catalog.rows import at_least, each, fields, matching, one_of, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed, check
from sdrun.core.model import (
    COMMERCE,
    GENERATORS,
    OUTPUTS,
    ROLES,
    Catalogue,
    Commerce,
    Defaults,
    HubFile,
    Licence,
    MadeBy,
    Model,
    ModelFile,
    Output,
    Row,
)
from sdrun.resources import images_dir

_LICENCE_KEYS = ("name", "commercial", "page", "accept")
_FILE_KEYS = ("file", "bytes", "sha256", "repository", "revision", "gated")
_ROW_KEYS = ("name", "aliases", "title", "family", "licence", "made_by", "shipped", "output", "engine_args",
             "default_quantisation", "defaults", "companions", "variants")  # fmt: skip
_VARIANT_KEYS = ("quantisation", "memory_mib", "files", "companions")
_DEFAULT_KEYS = ("width", "height", "steps", "cfg_scale", "guidance", "sampler", "seed")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_QUANTISATION = re.compile(r"[a-z][a-z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a plain file name: it is joined to a folder of the store
_PATH = re.compile(rf"{_FILE.pattern}(/{_FILE.pattern})*")
_REPOSITORY = re.compile(rf"{_FILE.pattern}/{_FILE.pattern}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SEED = 42


@cache
def models(path: Path | None = None) -> Catalogue:
    """Every model by every name, in file order, from images/models.yaml unless another file is named. Raises
    BadConfiguration with all faults at once."""
    return _Reader(YamlFile(path or images_dir() / "models.yaml")).read()


class _Reader:
    """One pass over the file: licences, then companion files, then the rows that refer to both."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._licences: dict[str, Licence] = {}
        self._companions: dict[str, ModelFile] = {}
        self._rows: dict[str, Row] = {}
        self._models: dict[str, Model] = {}
        self._taken: set[str] = set()
        self._default = ""

    def read(self) -> Catalogue:
        """The whole catalogue."""
        with self._file.collecting():
            top = fields(self._file, self._file.data, "", ("licences", "companions", "default", "models"))
            for licence in each(self._file, top, "licences", _LICENCE_KEYS, self._licence):
                self._licences[licence.name] = licence
            if top.find("companions", list) is not None:
                for name, part in each(self._file, top, "companions", ("name", *_FILE_KEYS), self._companion):
                    self._companions[name] = part
            for row, variants in each(self._file, top, "models", _ROW_KEYS, self._row):
                self._rows[row.name] = row
                self._models.update(variants)
            self._default = self._named(top)
        self._file.finish()
        return Catalogue(self._rows, self._models, self._default)

    def _named(self, top: Fields) -> str:
        """The model taken where the user names none; a catalogue need not have one."""
        name = top.find("default", str) or ""
        if name and name not in self._rows:
            raise Malformed(top.key("default"), f"{name[:40]!r} is the name of no model here")
        return name

    def _licence(self, row: Fields) -> Licence:
        commercial = cast(Commerce, one_of(row, "commercial", COMMERCE))
        name = row.get("name", str)
        if name in self._licences:
            raise Malformed(row.key("name"), f"{name} stands here a second time")
        return Licence(name, commercial, row.find("page", str), row.find("accept", bool) or False)

    def _companion(self, row: Fields) -> tuple[str, ModelFile]:
        name = matching(row, "name", _NAME, "lower-case letters, digits, dots and hyphens")
        if name in self._companions:
            raise Malformed(row.key("name"), f"{name} stands here a second time")
        return name, _model_file(row, on_hub=True)

    def _row(self, row: Fields) -> tuple[Row, dict[str, Model]]:
        name = self._new_name(matching(row, "name", _NAME, "lower-case letters, digits, dots and hyphens"), row.key("name"))
        aliases = tuple(self._new_name(alias, row.key("aliases")) for alias in texts(row, "aliases", optional=True))
        common = self._common(row, name)
        shared = self._parts(row)
        variants: dict[str, Model] = {}
        for model in each(
            self._file, row, "variants", _VARIANT_KEYS, lambda variant: self._variant(variant, common, shared, variants)
        ):
            variants[model.name] = model
        quantisations = tuple(model.quantisation for model in variants.values())
        default = row.get("default_quantisation", str)
        if default not in quantisations and len(quantisations) == len(row.items("variants")):
            raise Malformed(row.key("default_quantisation"), f"{default[:40]!r} is no quantisation of a variant here")
        return Row(name, aliases, default, quantisations), variants

    def _common(self, row: Fields, name: str) -> Model:
        """What the variants of a row share, as a Model with no files."""
        licence = self._licences.get(row.get("licence", str))
        if licence is None:
            raise Malformed(row.key("licence"), f"{row.get('licence', str)[:40]!r} does not stand under licences")
        output = cast(Output, one_of(row, "output", OUTPUTS) if row.find("output", str) else "picture")
        defaults = fields(self._file, row.get("defaults", dict), row.key("defaults"), _DEFAULT_KEYS)
        return Model(
            name=name,
            family=row.get("family", str),
            quantisation="",
            licence=licence,
            made_by=self._made_by(row),
            shipped=matching(row, "shipped", _PATH, "names of folders") if row.find("shipped", str) is not None else None,
            memory_mib=0,
            files={},
            defaults=_defaults(defaults, 64 if output == "picture" else 16),
            title=row.find("title", str) or name,
            engine_args=tuple(check(word, str, path) for path, word in row.items("engine_args", optional=True)),
            output=output,
        )

    def _variant(self, row: Fields, common: Model, shared: Mapping[str, ModelFile], known: Mapping[str, Model]) -> Model:
        quantisation = matching(row, "quantisation", _QUANTISATION, "lower-case letters, digits and underscores")
        name = f"{common.name}:{quantisation}"
        if name in known:
            raise Malformed(row.key("quantisation"), f"{quantisation} stands here a second time")
        return replace(
            common,
            name=name,
            quantisation=quantisation,
            memory_mib=at_least(row, "memory_mib", 1),
            files=self._files(row, shared, on_hub=common.made_by is None and common.shipped is None),
        )

    def _new_name(self, name: str, key: str) -> str:
        if not _NAME.fullmatch(name):
            raise Malformed(key, f"must be lower-case letters, digits, dots and hyphens, not {name[:40]!r}")
        if name in self._taken:
            raise Malformed(key, f"{name} stands here a second time")
        self._taken.add(name)
        return name

    def _made_by(self, row: Fields) -> MadeBy | None:
        if row.find("made_by", dict) is None:
            return None
        made_by = fields(self._file, row.get("made_by", dict), row.key("made_by"), ("generator", "seed"))
        return MadeBy(one_of(made_by, "generator", GENERATORS), at_least(made_by, "seed", 0))

    def _parts(self, row: Fields) -> dict[str, ModelFile]:
        """The companion files of a row or a variant, by role."""
        if row.find("companions", dict) is None:
            return {}
        listed = fields(self._file, row.get("companions", dict), row.key("companions"), ROLES)
        parts = {}
        for role in _known_roles(row, "companions"):
            name = listed.get(role, str)
            if name not in self._companions:
                raise Malformed(listed.key(role), f"{name[:40]!r} does not stand under companions")
            parts[role] = self._companions[name]
        return parts

    def _files(self, row: Fields, shared: Mapping[str, ModelFile], on_hub: bool) -> Mapping[str, ModelFile]:
        listed = fields(self._file, row.get("files", dict), row.key("files"), ROLES)
        files = {
            role: _model_file(fields(self._file, listed.get(role, dict), listed.key(role), _FILE_KEYS), on_hub)
            for role in _known_roles(row, "files")
        }
        files = {**files, **{role: part for role, part in {**shared, **self._parts(row)}.items() if role not in files}}
        if not {"model", "diffusion"} & files.keys():
            raise Malformed(row.key("files"), 'needs a "model" or a "diffusion" file')
        if len(set(files.values())) != len(files):
            raise Malformed(row.key("files"), "two roles have the same file")
        return MappingProxyType(files)


def _known_roles(row: Fields, name: str) -> Iterator[str]:
    """The keys of a mapping by role; those nobody knows were noted as faults by fields()."""
    return (role for role in row.get(name, dict) if role in ROLES)


def _model_file(row: Fields, on_hub: bool) -> ModelFile:
    path = matching(row, "file", _PATH, "letters, digits, dots, hyphens and underscores, in folders or not")
    source = None
    if on_hub:
        repository = matching(row, "repository", _REPOSITORY, "an owner, a slash and a name")
        revision = _known(row, "revision", _COMMIT, "40 hexadecimal digits in lower case")
        source = HubFile(repository, path, revision)
    elif row.find("repository", str) is not None:
        raise Malformed(row.key("repository"), "a file that sdrun makes or brings comes from no repository")
    if not on_hub and "/" in path:
        raise Malformed(row.key("file"), "must be a plain file name")
    sha256 = _known(row, "sha256", _SHA256, "64 hexadecimal digits in lower case")
    size = None if row.get("bytes", object) is None else at_least(row, "bytes", 1)
    if not on_hub and (sha256 is None or size is None):
        raise Malformed(row.path, "a file that sdrun makes or brings has its bytes and sha256 pinned")
    return ModelFile(path.rpartition("/")[2], size, sha256, source, row.find("gated", bool) or False)


def _defaults(row: Fields, step: int) -> Defaults:
    for name in ("width", "height"):
        if at_least(row, name, 64) % step:
            raise Malformed(row.key(name), f"must be a multiple of {step}")
    return Defaults(
        width=row.get("width", int),
        height=row.get("height", int),
        steps=at_least(row, "steps", 1),
        cfg_scale=_number(row, "cfg_scale"),
        sampler=row.get("sampler", str),
        seed=_SEED if row.find("seed", int) is None else at_least(row, "seed", 0),
        guidance=None if row.find("guidance", object) is None else _number(row, "guidance"),
    )


def _known(row: Fields, name: str, pattern: re.Pattern[str], what: str) -> str | None:
    """A pin, or null. The key itself must stand there: what is not known is written down as such."""
    return None if row.get(name, object) is None else matching(row, name, pattern, what)


def _number(row: Fields, name: str) -> float:
    value = row.get(name, object)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
        raise Malformed(row.key(name), "must be a number from 0 to 1000")
    return float(value)
