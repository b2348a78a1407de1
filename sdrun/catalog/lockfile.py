"""A fleet's lock file -> Lock."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

from sdrun.catalog.rows import fields, parsed, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.decode import Fields, Malformed, printable
from sdrun.core.index import COMPRESSIONS, Compression, IndexImage
from sdrun.core.lock import SCHEMA, Lock, LockedClass, LockedRefusal
from sdrun.core.node import SELECTORS, Selector
from sdrun.core.plan import CODE_PATHS, CodePath
from sdrun.core.platform import parse_platform
from sdrun.core.reference import Reference
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.errors import BadConfiguration

T = TypeVar("T", bound=str)
_TOP = ("schema", "engine", "allow_jit", "tolerate", "classes", "refused")
_IMAGE = ("target", "image", "platform", "toolkit", "sass", "ptx", "fatbin_compression")
_KIND = ("capabilities", "products", "memory_mib", "resource", "mig", "tegra", "min_driver", "min_cuda", "drivers")
_WAYS = ("selectors", "product_labels", "pools", "nodes", "label_nodes", "exclude")
_CLASS = ("name", "reason", "code_path", *_IMAGE, *_KIND, *_WAYS)
_REMEDY = "Write it anew: sdrun fleet lock --nodes FILE --index INDEX.json -o LOCK"


def read_lock(path: Path) -> Lock:
    """The lock in `path`. Raises BadConfiguration (id `bad-lock`) naming every fault with its line."""
    try:
        return parse_lock(path, path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise BadConfiguration(f"{path}: cannot be read: {fault.strerror}", _REMEDY, id="bad-lock") from None
    except UnicodeDecodeError:
        raise BadConfiguration(f"{path}: is not UTF-8 text", _REMEDY, id="bad-lock") from None


def parse_lock(path: Path, text: str) -> Lock:
    """The lock in `text`, which the file `path` holds."""
    try:
        file = YamlFile(path, text)
        classes: list[LockedClass] = []
        refused: list[LockedRefusal] = []
        engine, jit = "", True
        tolerate: tuple[str, ...] = ()
        with file.collecting():
            top = fields(file, file.data, "", _TOP)
            if (schema := top.get("schema", str)) != SCHEMA:
                raise Malformed("schema", f"must be {SCHEMA!r}, not {schema[:40]!r}")
            engine, tolerate, jit = top.text("engine"), texts(top, "tolerate"), top.get("allow_jit", bool)
            for key, value in top.items("classes"):
                with file.collecting():
                    classes.append(_class(fields(file, value, key, _CLASS)))
            for key, value in top.items("refused"):
                with file.collecting():
                    refused.append(_refusal(fields(file, value, key, ("node", "id", "message", "remedy"))))
            if len({row.name for row in classes}) != len(classes):
                raise Malformed("classes", "two of them have the same name")
        file.finish()
    except BadConfiguration as fault:
        raise BadConfiguration(fault.message, _REMEDY, id="bad-lock") from None
    return Lock(engine, tuple(classes), tuple(refused), jit, tuple(tolerate))


def _class(row: Fields) -> LockedClass:
    mig, tegra, memory = row.find("mig", str), row.find("tegra", str), row.find("memory_mib", int)
    return LockedClass(
        name=row.text("name"),
        image=_image(row),
        code_path=cast("CodePath", _one_of(row.get("code_path", str), CODE_PATHS, row.key("code_path"))),
        reason=row.get("reason", str),
        capabilities=parsed(row, "capabilities", ComputeCapability.parse),
        resource=row.text("resource"),
        mig=mig or "",
        memory_mib=memory,
        min_driver=row.find_parsed("min_driver", DriverVersion.parse),
        min_cuda=row.find_parsed("min_cuda", CudaVersion.parse),
        drivers=parsed(row, "drivers", DriverVersion.parse),
        products=texts(row, "products"),
        product_labels=texts(row, "product_labels", optional=True),
        selectors=tuple(cast("Selector", _one_of(way, SELECTORS, row.key("selectors"))) for way in texts(row, "selectors")),
        pools=texts(row, "pools"),
        nodes=texts(row, "nodes"),
        label_nodes=texts(row, "label_nodes", optional=True),
        exclude=texts(row, "exclude", optional=True),
        tegra=tegra,
    )


def _image(row: Fields) -> IndexImage:
    compression = row.find("fatbin_compression", str)
    if compression is not None:
        _one_of(compression, COMPRESSIONS, row.key("fatbin_compression"))
    return IndexImage(
        target=row.text("target"),
        image=row.parse("image", _pinned),
        platform=row.parse("platform", parse_platform),
        toolkit=row.find_parsed("toolkit", CudaVersion.parse),
        sass=parsed(row, "sass", Arch.parse),
        ptx=parsed(row, "ptx", Arch.parse),
        fatbin_compression=cast("Compression | None", compression),
    )


def _pinned(text: str) -> str:
    if Reference.parse(text).digest is None:
        raise ValueError(f"must be pinned by its digest, not {text[:80]!r}")
    return text


def _refusal(row: Fields) -> LockedRefusal:
    return LockedRefusal(row.text("node"), row.text("id"), row.parse("message", printable), row.parse("remedy", printable))


def _one_of(value: str, allowed: tuple[str, ...], key: str) -> str:
    if value not in allowed:
        raise Malformed(key, f"must be one of {', '.join(allowed)}, not {value[:40]!r}")
    return value
