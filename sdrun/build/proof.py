"""Reading back what was built: the image must hold what its target promises and nothing that could surprise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdrun.build.elf import Dynamic, is_elf, read_dynamic
from sdrun.build.gpucode import check_code
from sdrun.build.inspecting import inspect_file
from sdrun.build.rootfs import Rootfs, open_rootfs
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.engine import Engine
from sdrun.core.guard import folder_of
from sdrun.core.platform import MULTIARCH
from sdrun.core.target import PRUNED_LIBRARY, Target
from sdrun.errors import NoGpu, VerificationFailed
from sdrun.fatbin.report import file_to_json
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, LocalImage, Stream

_PIECE = 1 << 20
_FROM_THE_DRIVER = frozenset({"libcuda.so.1"})  # the host's driver brings it; in an image it would be the wrong one


@dataclass(frozen=True, slots=True)
class Proof:
    """What was read back. `libraries`: sonames in the image, loader included; `version`: what the engine says of itself (empty
    where it cannot be started without a driver); `transfer_bytes`: size of a pull; `unpacked_bytes`: of all files; `code`: the
    files with GPU code, as in schema sdrun.inspect/v1; `selftest`: what drawing recorded pictures came to, or why none could be
    drawn; empty where nobody asked; `pruned_library`: sha256 of the library that was pruned, empty where none was."""

    libraries: tuple[str, ...]
    version: str
    transfer_bytes: int
    unpacked_bytes: int
    code: tuple[Mapping[str, object], ...] = ()
    selftest: str = ""
    pruned_library: str = ""


@dataclass(slots=True)
class _Linking:
    """The closure of what programs need: paths of libraries found, and needs nothing in the image answers."""

    found: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def prove(
    image: LocalImage,
    archive: Path,
    target: Target,
    engine: Engine,
    labels: Mapping[str, str],
    runtime: ContainerRuntime,
) -> Proof:
    """Reads `archive` (the saved image) and starts its programs with everything closed. Raises VerificationFailed
    (`image-differs`) listing everything that is not as the target promises."""
    facts = load_cuda_facts()
    with open_rootfs(archive) as rootfs:
        linking, faults = check_rootfs(rootfs, target, engine)
        faults += _check_config(image, rootfs.config, target, labels)
        pruned, more = _pruned_library(rootfs, target)
        faults += more
        libraries, sizes = tuple(sorted(map(_name, linking.found))), (rootfs.transfer_bytes, rootfs.unpacked_bytes)
    inspection = inspect_file(archive, facts)
    faults += check_code(inspection, target, engine, facts)
    version = ""
    if not faults:
        if target.toolkit is None:
            version, faults = _start_programs(image, engine, runtime)
        else:
            version, faults = start_guarded(image, target, engine, runtime)
    if faults:
        listing = "\n".join(f"  - {fault}" for fault in faults)
        raise VerificationFailed(
            f"the image for {target.id} is not what the target promises",
            "Build it again with --force; if that does not help, the target's row or a template is wrong.",
            id="image-differs",
            detail=listing,
        )
    return Proof(libraries, version, *sizes, code=tuple(file_to_json(file) for file in inspection.files), pruned_library=pruned)


def _pruned_library(rootfs: Rootfs, target: Target) -> tuple[str, list[str]]:
    """sha256 of the library that was pruned, and what is wrong: an image that holds none although it says so, or the
    reverse."""
    found = [path for path, _ in rootfs.files() if _name(path).startswith(PRUNED_LIBRARY)]
    if not target.pruned:
        return "", [f"/{path} was pruned, and the target promises whole libraries" for path in found]
    if [_name(path) for path in found] != [target.pruned_library]:
        return "", [f"its pruned library {target.pruned_library} is not in the image"]
    digest = hashlib.sha256()
    with rootfs.open(found[0]) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest(), []


def check_rootfs(rootfs: Rootfs, target: Target, engine: Engine) -> tuple[_Linking, list[str]]:
    """Programs there, exactly the shared libraries they need, nothing else that could be executed, nothing set-user-id."""
    folders = ["usr/bin"]  # with GPU code, a guard under each program's name
    folders += [folder_of(variant).lstrip("/") for variant in target.variants] if target.toolkit else []
    programs = {f"{folder}/{name}" for folder in folders for name in engine.binaries.values()}
    files = dict(rootfs.files())
    faults = [f"/{path} is missing" for path in sorted(programs - set(files))]
    elf = {path for path in files if _is_elf(rootfs, path)}
    faults += [f"/{path} is not an ELF program" for path in sorted(programs & set(files) - elf)]
    linking = _Linking()
    for program in sorted(programs & elf):
        try:
            _link(rootfs, program, target.platform, linking)
        except ValueError as fault:
            faults.append(f"/{program} or a library it needs cannot be read: {fault}")
    faults += [f"{name} is needed and not in the image" for name in sorted(linking.missing - _FROM_THE_DRIVER)]
    faults += [f"/{path} is in the image and nothing needs it" for path in sorted(elf - programs - linking.found)]
    for path, member in files.items():
        if member.mode & 0o6000:
            faults.append(f"/{path} is set-user-id or set-group-id")
        if member.mode & 0o111 and path not in elf:
            faults.append(f"/{path} is executable and is not one of the engine's programs")
    return linking, faults


def _is_elf(rootfs: Rootfs, path: str) -> bool:
    with rootfs.open(path) as file:
        return is_elf(file)


def _link(rootfs: Rootfs, path: str, platform: str, linking: _Linking) -> None:
    with rootfs.open(path) as file:
        dynamic = read_dynamic(file)
    for name in (*dynamic.needed, *([dynamic.interpreter] if dynamic.interpreter else [])):
        where = _search(rootfs, name, dynamic, path, platform)
        if where is None:
            if not any(_name(found) == name for found in linking.found):
                linking.missing.add(name)
        elif where not in linking.found:
            linking.found.add(where)
            linking.missing.discard(name)
            _link(rootfs, where, platform, linking)


def _search(rootfs: Rootfs, name: str, dynamic: Dynamic, path: str, platform: str) -> str | None:
    if "/" in name:
        return rootfs.resolve(name)
    origin = "/" + path.rpartition("/")[0]
    folders = [folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for folder in dynamic.runpath]
    multiarch = MULTIARCH.get(platform, "")  # where the loader looks without a cache file: ld.so(8)
    folders += [f"/lib/{multiarch}", f"/usr/lib/{multiarch}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    return next((found for folder in folders if (found := rootfs.resolve(f"{folder}/{name}"))), None)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _check_config(image: LocalImage, config: Mapping[str, object], target: Target, labels: Mapping[str, str]) -> list[str]:
    faults = []
    user = str(config.get("User") or "").partition(":")[0]
    if user in ("", "0", "root"):
        faults.append(f"its user is {user or 'unset, which is root'}")
    if image.platform != target.platform:
        faults.append(f"its platform is {image.platform}, not {target.platform}")
    for name, value in labels.items():
        if image.labels.get(name) != value:
            faults.append(f"label {name} is {image.labels.get(name)!r}, not {value!r}")
    return faults


def _start_programs(image: LocalImage, engine: Engine, runtime: ContainerRuntime) -> tuple[str, list[str]]:
    """What the engine answers to --version, with no network, a read-only root and no rights; and what went wrong."""
    faults: list[str] = []
    version = ""
    for role, name in engine.binaries.items():
        for option in ("--version", "--help") if role == "cli" else ("--help",):
            code, text = _start(image, f"/usr/bin/{name}", option, runtime)
            if code != 0:
                faults.append(f"{name} {option} ends with exit code {code}: {text[-300:]}")
            elif option == "--version":
                version = (text.splitlines() or [""])[0]
    return version, faults


def start_guarded(image: LocalImage, target: Target, engine: Engine, runtime: ContainerRuntime) -> tuple[str, list[str]]:
    """Without a driver the guard must refuse (exit 3), and each program behind it must start, or miss libcuda.so.1 and nothing
    else: the loader names the first library that it does not find."""
    faults: list[str] = []
    version = ""
    for role, name in engine.binaries.items():
        option = "--version" if role == "cli" else "--help"
        code, text = _start(image, f"/usr/bin/{name}", option, runtime)
        if code != NoGpu.exit_code or "sdrun guard: no-gpu" not in text:
            faults.append(f"the guard of {name} ends with exit code {code}, without a driver: {text[-300:]}")
        for variant in target.variants:
            program = f"{folder_of(variant)}/{name}"
            code, text = _start(image, program, option, runtime)
            if code == 0 and role == "cli":
                version = (text.splitlines() or [""])[0]
            elif code != 0 and "libcuda.so.1: cannot open shared object file" not in text:
                faults.append(f"{program} {option} ends with exit code {code}: {text[-300:]}")
    return version, faults


def _start(image: LocalImage, program: str, option: str, runtime: ContainerRuntime) -> tuple[int, str]:
    output: list[bytes] = []

    def keep(stream: Stream, data: bytes) -> None:
        output.append(data)

    spec = ContainerSpec(image.id, (option,), "65532:65532", entrypoint=(program,))
    ended = runtime.run(spec, keep)
    return ended.code, b"".join(output).decode("utf-8", "replace").strip()
