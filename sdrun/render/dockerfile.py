"""A target -> the files of its build context, all but the engine's sources."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.capability import Arch
from sdrun.core.code import loadable_archs, match
from sdrun.core.driver import combined
from sdrun.core.engine import Engine
from sdrun.core.facts import CudaFacts
from sdrun.core.guard import PROGRAMS, guard_header
from sdrun.core.index import IndexImage
from sdrun.core.labels import image_labels
from sdrun.core.platform import MULTIARCH
from sdrun.core.target import Base, Target, Toolchain, Variant
from sdrun.core.version import CudaVersion
from sdrun.resources import images_dir, templates_dir

if TYPE_CHECKING:
    from jinja2 import Environment

USER_ID = 65532  # "nonroot" of the distroless images; Kubernetes' runAsNonRoot wants a number
COMPRESS_MODES_FROM = CudaVersion(12, 8)  # nvcc has -compress-mode (toolkits.yaml, compress_modes)
TOOLKIT_MOUNT = "/run/toolkit"  # where the engine's stage sees the toolkit's layer
LINK_SCRIPT = "link-cublas.sh"
CONTEXT_SOURCE = "engine.tar"  # what the Dockerfile ADDs; sdrun build puts it beside the rendered files


def render(target: Target, engine: Engine, base: Base) -> dict[str, str]:
    """File name -> text: `Dockerfile` and what its steps run. A pure function of the catalogue and the templates: two renders
    are byte-identical. Raises jinja2.UndefinedError for a template that names what is not there (a defect, not bad input)."""
    script = "collect-rootfs.sh"
    files = {script: (templates_dir() / script).read_text(encoding="utf-8")}
    if target.toolchain is not None:
        files["guard.c"] = (images_dir() / "guard" / "guard.c").read_text(encoding="utf-8")
        files["guard-target.h"] = guard_header(target, tuple(engine.binaries.values()), load_cuda_facts())
    left_out = engine.left_out_of(gpu_code=target.toolkit is not None)
    files |= {f"{part.part}.patch": part.patch for part in left_out}
    if target.pruned:
        files[LINK_SCRIPT] = (templates_dir() / LINK_SCRIPT).read_text(encoding="utf-8")
    template = _environment().get_template("Dockerfile.j2")
    text = template.render(
        target=target,
        engine=engine,
        base=base,
        context=list(files),
        packages=packages(target, engine, base),
        cmake=cmake_options(target, engine),
        labels=image_labels(target, engine, base),
        left_out=left_out,
        variants=[{"name": one.name, "architectures": cuda_architectures(one)} for one in target.variants],
        build="/build" if len(target.variants) == 1 else '"$build"',
        library_path=library_path(target),
        programs=PROGRAMS,
        pruned_for=kept_archs(target, load_cuda_facts()),
        toolkit_mount=TOOLKIT_MOUNT,
        toolkit_licences=toolkit_licences(target),
        driver_cuda=driver_cuda(target, load_cuda_facts()),
        user=USER_ID,
    )
    return {"Dockerfile": text, **files}


def driver_cuda(target: Target, facts: CudaFacts) -> str | None:
    """The CUDA version a driver must speak for the target's machine code; None without any."""
    if target.toolkit is None:
        return None
    floors = [facts.sass_floor(target.toolkit), *([facts.zstd_floor] if target.fatbin_compression == "zstd" else [])]
    return str(combined(floors).cuda)


def kept_archs(target: Target, facts: CudaFacts) -> tuple[Arch, ...]:
    """The machine code that stays in a pruned library: all that a GPU which the target serves can load, for a kernel may be
    there for a lower minor alone (8.0, 8.6 and 8.9 for 8.9), and cuBLAS chooses kernels by the GPU, not by the image's arch
    (so for 8.0 as well, whose images run on 8.6 and 8.9). Empty where nothing is pruned."""
    if not target.pruned or target.toolkit is None:
        return ()
    image = IndexImage(str(target.id), "", target.platform, target.toolkit, target.sass, target.ptx)
    served = [device for device in facts.capabilities if match(image, device, mixes=False, facts=facts).path is not None]
    emitted = facts.toolkits[target.toolkit].sass
    return tuple(sorted({one for device in served for one in loadable_archs(emitted, device, facts)}))


def library_path(target: Target) -> str:
    """What `export` needs besides, with a blank before it, for a toolkit that lies where the loader does not look."""
    toolchain = target.toolchain
    return f" LD_LIBRARY_PATH={toolchain.root}/lib64" if toolchain is not None and toolchain.root != "/usr" else ""


def toolkit_licences(target: Target) -> tuple[str, ...]:
    """Where the licence of the toolkit's libraries may lie when no Debian package owns them."""
    toolchain = target.toolchain
    if toolchain is None or toolchain.kind == "debian":
        return ()
    if toolchain.kind == "pypi":
        return ("/opt/wheels/nvidia_cublas-*.dist-info/licenses/License.txt",)
    return (f"{toolchain.root}/EULA.txt", "/NGC-DL-CONTAINER-LICENSE")


def packages(target: Target, engine: Engine, base: Base) -> list[str]:
    """The Debian packages of the toolchain stage, sorted. With a toolkit the compiler is the newest that its headers accept."""
    toolchain = target.toolchain
    patching = {"patch"} if engine.left_out_of(gpu_code=toolchain is not None) else set()
    if toolchain is None:
        return sorted({*base.packages, *patching})
    return sorted({*base.packages, *toolchain.packages, *patching, f"g++-{toolchain.gcc}"} - {"g++"})


def cmake_options(target: Target, engine: Engine) -> Mapping[str, str]:
    """Every -D option of this target but the list of archs, sorted by name; the CPU level's win over the engine's own, and
    those that follow from the target over both."""
    options = {**engine.cmake, **engine.cpu_levels[target.cpu_level]}
    toolchain = target.toolchain
    if toolchain is not None:
        options |= {
            **engine.cuda,
            "CMAKE_C_COMPILER": f"gcc-{toolchain.gcc}",
            "CMAKE_CXX_COMPILER": f"g++-{toolchain.gcc}",
            "CMAKE_CUDA_COMPILER": f"{toolchain.root}/bin/nvcc",
            "CMAKE_CUDA_HOST_COMPILER": f"/usr/bin/g++-{toolchain.gcc}",
            **compression_options(target, toolchain),
        }
        if library_path(target):
            options["CMAKE_SKIP_RPATH"] = "ON"  # the finished image has the libraries where the loader looks
        if target.pruned:
            library = f"{TOOLKIT_MOUNT}/usr/lib/{MULTIARCH[target.platform]}/{target.pruned_library}"
            options |= {f"CUDA_{name}_LIBRARY": library for name in engine.cublas_libraries}
            options["CMAKE_SKIP_RPATH"] = "ON"
        if not toolchain.driver_stub:
            options["GGML_CUDA_NO_VMM"] = "ON"
    return dict(sorted(options.items()))


def cuda_architectures(variant: Variant) -> str:
    """CMake's list: `-real` is machine code alone, `-virtual` PTX alone; a bare number would be both."""
    return ";".join([*(f"{arch}-real" for arch in variant.sass), *(f"{arch}-virtual" for arch in variant.ptx)])


def compression_options(target: Target, toolchain: Toolchain) -> dict[str, str]:
    """How fatbins get the target's compression. By itself nvcc compresses PTX and leaves machine code as it is; `-compress-all`
    compresses both, with lz4 unless -compress-mode (12.8 on, which ggml passes) says otherwise. Measured on nvcc 13.5; the
    build reads the result back."""
    has_modes = toolchain.toolkit >= COMPRESS_MODES_FROM
    if target.fatbin_compression == "zstd":
        return {"GGML_CUDA_COMPRESSION_MODE": "size"}
    if target.fatbin_compression == "lz4":
        return {"CMAKE_CUDA_FLAGS": "-Xfatbin=-compress-all", **({"GGML_CUDA_COMPRESSION_MODE": "speed"} if has_modes else {})}
    return {"GGML_CUDA_COMPRESSION_MODE": "none"} if has_modes else {}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        autoescape=False,  # Dockerfiles, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = shlex.quote
    environment.filters["quoted"] = quoted
    return environment


def quoted(text: str) -> str:
    """`text` as a double-quoted Dockerfile word, in which `$` would start a variable."""
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")
