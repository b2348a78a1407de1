"""Images whose compiled archs do not suit a GPU of 9.0, and differ from the right one in nothing else: what bench/failures.py
replays.

    python bench/control_images.py                     builds all of CONTROLS with the local Docker, as sdrun-control:<name>
    python bench/control_images.py 89 75ptx-86         builds these
    python bench/control_images.py --render DIR 89     writes the build context alone, without the engine's sources
    python bench/control_images.py --save FILE         also writes one tar of all that were named, for `docker load` where the
                                                       model is there already: it holds the engines' layers alone

Each is what `sdrun build cu124-sm90 --pruned` builds, with another list in CMAKE_CUDA_ARCHITECTURES, with the labels and the
guard's table that follow from that list, and no other change: so all layers but the engine's are shared with it, cuBLAS for 9.0
among them. What the finished programs hold is read back; an image that holds anything else gets no name.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sdrun.build.base import ensure_base  # noqa: E402
from sdrun.build.building import BuildRequest, run_build  # noqa: E402
from sdrun.build.client import BuildClient, find_client  # noqa: E402
from sdrun.build.inspecting import inspect_file  # noqa: E402
from sdrun.build.local import in_full, pruned  # noqa: E402
from sdrun.build.proof import start_guarded  # noqa: E402
from sdrun.build.readback import save_image  # noqa: E402
from sdrun.build.source import fetch  # noqa: E402
from sdrun.catalog.cuda import load_cuda_facts  # noqa: E402
from sdrun.catalog.engines import engines  # noqa: E402
from sdrun.catalog.targets import targets  # noqa: E402
from sdrun.core.capability import Arch  # noqa: E402
from sdrun.core.engine import Engine  # noqa: E402
from sdrun.core.guard import folder_of, guard_header  # noqa: E402
from sdrun.core.labels import image_labels  # noqa: E402
from sdrun.core.target import Base, Target, TargetId  # noqa: E402
from sdrun.render.dockerfile import CONTEXT_SOURCE, cuda_architectures, quoted, render  # noqa: E402
from sdrun.resources import cache_root  # noqa: E402
from sdrun.runtime import connect  # noqa: E402
from sdrun.runtime.protocol import ContainerRuntime, LocalImage  # noqa: E402

REPOSITORY = "sdrun-control"
MODEL = "cu124-sm90"  # the target that each image is a changed copy of


@dataclass(frozen=True, slots=True)
class Control:
    """One image: its tag, the code its programs hold, whether all of the engine's GPU code is built, what it stands for, and a
    capability (of a GPU that it would suit) by which the resolver lets it pass, empty where that lets it pass anyway."""

    name: str
    sass: tuple[str, ...]
    ptx: tuple[str, ...]
    full: bool
    stands_for: str
    pretend: str = ""


CONTROLS = (
    Control("89", ("89",), (), False, "machine code of another major, and no PTX", "8.9"),
    Control("75ptx-86", ("86",), ("75",), False, "one program whose host and device code disagree on 9.0", "8.6"),
    Control("ptx80", (), ("80",), True, "the default build on a GPU that none of its machine code fits"),
)
# Refused like 75ptx-86, and right by ggml's source (docs/archs.md): built and replayed where it is asked for by its name.
FURTHER = (Control("80ptx-86", ("86",), ("80",), False, "the same with nothing between the two that ggml tells apart", "8.6"),)


def changed(control: Control) -> tuple[Target, Target, Engine, Base]:
    """The target to copy, what `control` makes of it, and what both are built from and with."""
    model, engine = _row()
    base = targets().bases[model.base]
    if control.full:
        model, engine = in_full(model, engine)
    sass, ptx = tuple(map(Arch.parse, control.sass)), tuple(map(Arch.parse, control.ptx))
    toolkit = model.id.toolkit
    assert toolkit is not None  # MODEL has one
    floor = load_cuda_facts().min_driver(toolkit, ptx_only=not sass, zstd=model.fatbin_compression == "zstd")
    named = replace(model, id=TargetId(toolkit, (*sass, *ptx)[0]), sass=sass, ptx=ptx, min_driver=floor)
    return model, named, engine, base


def _row() -> tuple[Target, Engine]:
    model = next(row for row in targets().rows if row.name == MODEL)
    return replace(model, pruned=True), engines()[model.engine]


def context_of(control: Control) -> dict[str, str]:
    """The files of the build context: the model's, with archs, labels and guard exchanged and nothing else."""
    model, target, engine, base = changed(control)
    files = render(model, engine, base)
    text = files["Dockerfile"]
    if control.full:  # packages as in the plain build: the toolkit is not installed a second time
        plain = render(*_row(), base)
        text = _exchange(text, _toolchain(text), _toolchain(plain["Dockerfile"]))
    archs = [cuda_architectures(one.variants[0]) for one in (model, target)]
    text = _exchange(text, f"-DCMAKE_CUDA_ARCHITECTURES={archs[0]} ", f"'-DCMAKE_CUDA_ARCHITECTURES={archs[1]}' ")
    old, new = image_labels(model, engine, base), image_labels(target, engine, base)
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            text = _exchange(text, f" {name}={quoted(old[name])}", f" {name}={quoted(new[name])}")
    guard = guard_header(target, tuple(engine.binaries.values()), load_cuda_facts())
    return {**files, "Dockerfile": text, "guard-target.h": guard}


def _toolchain(dockerfile: str) -> str:
    """The stage that installs compilers and toolkit."""
    return dockerfile[dockerfile.index("FROM ${BASE} AS toolchain") : dockerfile.index("FROM toolchain AS engine")]


def _exchange(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        sys.exit(f"the Dockerfile of {MODEL} has {old.strip()!r} {text.count(old)} times; this script expects it once")
    return text.replace(old, new)


def build(control: Control, client: BuildClient, runtime: ContainerRuntime, jobs: int | None) -> str:
    """Builds, reads back, and gives the image its name, which is returned."""
    _, target, engine, base = changed(control)
    reference, trial = f"{REPOSITORY}:{control.name}", f"{REPOSITORY}-trial:{control.name}"
    start = ensure_base(base, runtime, client, print)
    log = cache_root() / "logs" / f"control-{control.name}.log"
    with tempfile.TemporaryDirectory(dir=_folder(cache_root() / "contexts"), prefix="control-") as name:
        write(Path(name), context_of(control))
        (Path(name) / CONTEXT_SOURCE).hardlink_to(fetch(engine, cache_root(), print).tar)
        arguments = {"BASE": start.reference, **({"JOBS": str(jobs)} if jobs else {})}
        run_build(client, BuildRequest(Path(name), trial, {}, arguments), log, lambda step: None)
    image = runtime.image(trial)
    if image is None:
        sys.exit(f"{client.program} ended well and has no image {trial}")
    try:
        faults = read_back(image, target, engine, runtime)
        if faults:
            sys.exit("\n  ".join([f"{reference} is not what it should be:", *faults]))
        _docker(client, "tag", trial, reference)
    finally:
        _docker(client, "rmi", trial)
    return reference


def read_back(image: LocalImage, target: Target, engine: Engine, runtime: ContainerRuntime) -> list[str]:
    """In what the programs of `image` differ from `target`. The libraries are the model's on purpose and are not looked at."""
    with tempfile.TemporaryDirectory(dir=_folder(cache_root() / "contexts"), prefix="control-") as name:
        save_image(image, Path(name) / "image.tar", runtime)
        inspection = inspect_file(Path(name) / "image.tar", load_cuda_facts())
    found = {file.path: file for file in inspection.files}
    believed = tuple(sorted(Arch(arch.number) for arch in (*target.sass, *target.ptx)))
    faults = list(inspection.faults)
    for program in engine.binaries.values():
        path = f"{folder_of(target.variants[0])}/{program}".lstrip("/")
        if path not in found:
            faults.append(f"/{path} holds no GPU code")
        elif (held := (found[path].sass, found[path].ptx, found[path].engine_archs)) != (target.sass, target.ptx, believed):
            faults.append(f"/{path} holds SASS {held[0]}, PTX {held[1]} and believes {held[2]}")
    return faults + start_guarded(image, target, engine, runtime)[1]


def write(folder: Path, files: Mapping[str, str]) -> None:
    """The files of a build context."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def save(references: Sequence[str], model: str, file: Path, client: BuildClient) -> None:
    """`docker save` of `references` into `file`, without the layers that begin `model`: `docker load` reads a layer only where
    it has none of that content on top of the same ones."""
    known = _layers(model, client)
    with tempfile.TemporaryDirectory(dir=_folder(file.parent), prefix=".control-") as name:
        whole = Path(name) / "whole.tar"
        with whole.open("wb") as out:
            subprocess.run(client.argv("save", *references), check=True, stdout=out, env=client.environment())
        with tarfile.open(whole) as tar, tarfile.open(Path(name) / "part.tar", "w", format=tarfile.PAX_FORMAT) as part:
            images = json.loads(_content(tar, "manifest.json"))
            shared: set[str] = set()
            for image in images:
                own = json.loads(_content(tar, image["Config"]))["rootfs"]["diff_ids"]
                count = next((i for i, pair in enumerate(zip(own, known, strict=False)) if pair[0] != pair[1]), len(known))
                shared |= set(image["Layers"][:count])
            for member in tar.getmembers():
                if member.name not in shared:
                    part.addfile(member, tar.extractfile(member) if member.isfile() else None)
        (Path(name) / "part.tar").replace(file)


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    assert found is not None  # both are plain files
    return found.read()


def _layers(reference: str, client: BuildClient) -> list[str]:
    argv = client.argv("image", "inspect", "--format", "{{json .RootFS.Layers}}", reference)
    layers: list[str] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return layers


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _docker(client: BuildClient, *arguments: str) -> None:
    subprocess.run(client.argv(*arguments), check=True, stdout=subprocess.DEVNULL, env=client.environment())


def main(argv: Sequence[str] | None = None) -> None:
    """See above."""
    known = (*CONTROLS, *FURTHER)
    names = [control.name for control in known]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, help="compilers at a time")
    parser.add_argument("--render", type=Path, metavar="DIR")
    parser.add_argument("--save", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if not re.fullmatch("|".join(names), name)]:
        parser.error(f"no control image {', '.join(unknown)}; there are {', '.join(names)}")
    wanted = [control for control in known if control.name in options.names] or list(CONTROLS)
    if options.render is not None:
        for control in wanted:
            write(_folder(options.render / control.name), context_of(control))
        return
    runtime = connect("docker")
    client = find_client(runtime.name)
    built = [build(control, client, runtime, options.jobs) for control in wanted]
    print("\n".join(built))
    if options.save is not None:
        row, engine = _row()
        model, _ = pruned(replace(row, pruned=False), engine)  # the name that sdrun build --pruned gives it
        save(built, f"sdrun:{model.tag}", options.save.absolute(), client)


if __name__ == "__main__":
    main()
