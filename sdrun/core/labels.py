"""The labels of an image: what was asked for when it was built and, once proven, what it holds. One place for their names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from sdrun.core.capability import Arch
from sdrun.core.decode import Malformed, parse_at
from sdrun.core.engine import Engine, PathSource
from sdrun.core.index import COMPRESSIONS, Compression, IndexImage
from sdrun.core.target import Base, Target, TargetId
from sdrun.core.version import CudaVersion, DriverVersion

TARGET = "io.sdrun.target"
PLATFORM = "io.sdrun.platform"
ENGINE = "io.sdrun.engine"
ENGINE_REVISION = "io.sdrun.engine-revision"
ENGINE_SOURCE = "io.sdrun.engine-source"
TOOLKIT = "io.sdrun.toolkit"
SASS = "io.sdrun.sass"
PTX = "io.sdrun.ptx"
FATBIN_COMPRESSION = "io.sdrun.fatbin-compression"
MIN_DRIVER = "io.sdrun.min-driver"
TOOLCHAIN = "io.sdrun.toolchain"
CPU_LEVEL = "io.sdrun.cpu-level"
PRUNED = "io.sdrun.pruned-libraries"  # `yes` where the toolkit's libraries lack the code of other archs; absent else
LEFT_OUT = "io.sdrun.left-out"  # parts of the engine that this image does without (images/engines.yaml)
RECIPE = "io.sdrun.recipe"  # sha256 over everything that decides the image's content; given at build time, not rendered
BASE_DIGEST = "org.opencontainers.image.base.digest"  # likewise: the base that was there when it was built


def image_labels(target: Target, engine: Engine, base: Base) -> dict[str, str]:
    """The labels rendered into the target's Dockerfile, sorted by name. An empty value stands for "none"."""
    labels = {
        "org.opencontainers.image.title": f"{engine.title} for {target.id}",
        "org.opencontainers.image.description": _description(target, engine),
        "org.opencontainers.image.created": datetime.fromtimestamp(engine.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.url": engine.url,
        "org.opencontainers.image.source": engine.url,
        "org.opencontainers.image.version": engine.version,
        "org.opencontainers.image.revision": engine.revision,
        "org.opencontainers.image.licenses": licences(target, engine, base),
        "org.opencontainers.image.base.name": base.image,
        TARGET: str(target.id),
        PLATFORM: target.platform,
        ENGINE: target.engine,
        ENGINE_REVISION: engine.revision,
        ENGINE_SOURCE: "path" if isinstance(engine.source, PathSource) else str(engine.source),
        TOOLKIT: str(target.toolkit or ""),
        SASS: ",".join(str(arch) for arch in target.sass),
        PTX: ",".join(str(arch) for arch in target.ptx),
        FATBIN_COMPRESSION: target.fatbin_compression or "",
        MIN_DRIVER: str(target.min_driver or ""),
        CPU_LEVEL: target.cpu_level,
    }
    if target.toolchain is not None:
        labels[TOOLCHAIN] = target.toolchain.kind
        labels |= {PRUNED: "yes"} if target.pruned else {}
    left_out = engine.left_out_of(gpu_code=target.toolchain is not None)
    if left_out or target.toolchain is not None:
        labels[LEFT_OUT] = ",".join(part.part for part in left_out)
    return dict(sorted(labels.items()))


def licences(target: Target, engine: Engine, base: Base) -> str:
    """The SPDX expression for all of an image. cudart and cuBLAS come under NVIDIA's terms, whose text lies in the image."""
    own = f"{engine.licence} AND {base.licence}"
    return own if target.toolkit is None else f"{own} AND LicenseRef-NVIDIA-CUDA-Toolkit-EULA"


def _description(target: Target, engine: Engine) -> str:
    if target.toolkit is None:
        return f"{engine.title} {engine.version}, CPU only ({target.cpu_level})"
    code = [f"SASS {', '.join(map(str, target.sass))}"] if target.sass else []
    code += [f"PTX {', '.join(map(str, target.ptx))}"] if target.ptx else []
    return f"{engine.title} {engine.version}, CUDA {target.toolkit}, {' and '.join(code)}"


def index_image_from_labels(labels: Mapping[str, str], image: str, platform: str, size_bytes: int | None = None) -> IndexImage:
    """The index row of an image from its own labels. `image` is the reference a run should use (digest or content id).

    Raises Malformed naming the label when one is missing or is not what sdrun writes.
    """
    target = parse_at(TargetId.parse, _label(labels, TARGET), TARGET)
    toolkit_text = labels.get(TOOLKIT, "")
    toolkit = parse_at(CudaVersion.parse, toolkit_text, TOOLKIT) if toolkit_text else None
    if toolkit != target.toolkit:
        raise Malformed(TOOLKIT, f"is {toolkit_text!r} although the target is {target}")
    return IndexImage(
        target=str(target),
        image=image,
        platform=platform,
        toolkit=toolkit,
        sass=_archs(labels, SASS),
        ptx=_archs(labels, PTX),
        fatbin_compression=_compression(labels),
        tag=f"{_label(labels, ENGINE)}-{target}",
        size_bytes=size_bytes,
    )


def target_from_labels(labels: Mapping[str, str]) -> Target:
    """The target an image says it is of. Its base is not known from labels, nor are other toolchains. Raises Malformed."""
    row = index_image_from_labels(labels, "", _label(labels, PLATFORM))
    driver = labels.get(MIN_DRIVER, "")
    return Target(
        id=parse_at(TargetId.parse, row.target, TARGET),
        engine=_label(labels, ENGINE),
        platform=row.platform,
        base="",
        cpu_level=_label(labels, CPU_LEVEL),
        sass=row.sass,
        ptx=row.ptx,
        fatbin_compression=row.fatbin_compression,
        min_driver=parse_at(DriverVersion.parse, driver, MIN_DRIVER) if driver else None,
        pruned=labels.get(PRUNED) == "yes",
    )


def _label(labels: Mapping[str, str], name: str) -> str:
    if not labels.get(name):
        raise Malformed(name, "is missing among the image's labels")
    return labels[name]


def _archs(labels: Mapping[str, str], name: str) -> tuple[Arch, ...]:
    texts = [text for text in labels.get(name, "").split(",") if text]
    return tuple(sorted({parse_at(Arch.parse, text, name) for text in texts}))


def _compression(labels: Mapping[str, str]) -> Compression | None:
    text = labels.get(FATBIN_COMPRESSION, "")
    if not text:
        return None
    if text not in COMPRESSIONS:
        raise Malformed(FATBIN_COMPRESSION, f"must be one of {', '.join(COMPRESSIONS)}, not {text[:40]!r}")
    return cast("Compression", text)
