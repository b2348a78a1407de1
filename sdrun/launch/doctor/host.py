"""Checks of the machine itself: its GPUs and driver, its kind, its processor, and what was set by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from sdrun.core.choose import Request
from sdrun.core.device import all_devices
from sdrun.core.driver import Driver, driver_of, reachable
from sdrun.core.facts import NO_CUDA, CudaFacts, Floor
from sdrun.core.host import HostFacts
from sdrun.core.index import IndexImage
from sdrun.core.policy import Policy
from sdrun.core.sentences import update
from sdrun.errors import SdrunError
from sdrun.launch.doctor.check import Outcome, fail, failed_by, ok, skip, warn
from sdrun.launch.doctor.surroundings import Surroundings

# What only changes what is found out; the others change what is done with it.
FACT_VARIABLES = ("SDRUN_HOST_FACTS", "SDRUN_COMPUTE_CAPABILITY", "SDRUN_DRIVER_VERSION")
PLACE_VARIABLES = ("SDRUN_RUNTIME", "SDRUN_INDEX", "SDRUN_REGISTRY", "SDRUN_CACHE_DIR", "SDRUN_STATE_DIR")
VARIABLES = (*FACT_VARIABLES, *PLACE_VARIABLES, "SDRUN_TRACEBACK")
CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)


def gpu(around: Surroundings) -> Outcome:
    """A GPU and its driver. A host without one fails with the code that `sdrun generate` would end with there: the CPU is
    never taken silently, and the remedy names the option that takes it."""
    host = around.host()
    driver = f"driver {host.driver_version}" if host.driver_version else "no NVIDIA driver"
    if not host.gpus:
        return fail(f"no usable NVIDIA GPU ({driver})" + _first_note(host), _without_gpu(host), 3)
    kinds = Counter(_describe(card.name, str(card.compute_capability), card.memory_mib) for card in host.gpus)
    seen = ", ".join(f"{count} x {text}" if count > 1 else text for text, count in kinds.items())
    seen = f"{seen}; {driver} (found by {host.probe})"
    if host.driver_version is None and host.tegra is None:
        return fail(f"{seen}: no driver is loaded", "sudo modprobe nvidia", 3)
    troubles = [note for note in host.notes if not _is_about_override(note, around) and "CDI spec" not in note]
    if troubles:
        return warn(f"{seen}. {troubles[0]}", "Follow the note above; sdrun detect --json tells all of them.")
    return ok(seen)


def _describe(name: str, capability: str, memory_mib: int) -> str:
    memory = f", {memory_mib / 1024:.0f} GiB" if memory_mib else ""
    return f"{name} ({capability}{memory})"


def _first_note(host: HostFacts) -> str:
    return f". {host.notes[0]}" if host.notes else ""


def _without_gpu(host: HostFacts) -> str:
    if host.driver_version is None:
        return "Install NVIDIA's driver, or draw on the CPU: sdrun generate -p 'a red heart' --allow-cpu"
    return "nvidia-smi (it says what is wrong), or draw on the CPU: sdrun generate -p 'a red heart' --allow-cpu"


def _is_about_override(note: str, around: Surroundings) -> bool:
    """Whether a note of the probes tells of a variable, or of the file that SDRUN_HOST_FACTS names."""
    file = around.environ.get("SDRUN_HOST_FACTS")
    return any(name in note for name in FACT_VARIABLES) or (file is not None and note.startswith(f"{file} "))


def driver(around: Surroundings) -> Outcome:
    """The running driver against what every image demands, as far as a newer one can be had for these GPUs."""
    host, index, facts = around.host(), around.index.or_none(), around.cuda()
    running = driver_of(host, facts)
    images = [image for image in index.images if image.toolkit and image.platform == host.platform] if index else []
    if running is None:
        return skip("no driver")
    if index is None or not images:
        return skip("no CUDA image to compare with (--index, SDRUN_INDEX)")
    floors = {image.target: floor for image in images if (floor := _unmet(image, running, facts))}
    kind, none_runs = "published" if index.published else "local", len(floors) == len(images)
    seen = f"{running} serves {len(images) - len(floors)} of {len(images)} {kind} images"
    if not floors:
        return ok(seen)
    devices = all_devices(host)
    had = {
        target: floor
        for target, floor in floors.items()
        if not devices or any(reachable(floor, device.capability, host, facts) for device in devices)
    }
    if not had:
        seen = f"{seen}; the others need one newer than any for this GPU"
        return fail(seen, "Name or build images of an older toolkit: sdrun targets", 5) if none_runs else ok(seen)
    target, floor = min(had.items(), key=lambda item: (item[1].cuda, item[0]))
    needed = update(floor, Request(host, index, Policy(), facts), devices)
    seen, remedy = f"{seen}; {target} needs {needed}", f"Install {needed} or newer."
    return fail(seen, remedy, 5) if none_runs else warn(seen, remedy)


def _unmet(image: IndexImage, running: Driver, facts: CudaFacts) -> Floor | None:
    """The highest demand of an image with GPU code that `running` does not meet."""
    toolkit = image.toolkit or NO_CUDA
    demands = [facts.sass_floor(toolkit)] if image.sass else [facts.ptx_floor(toolkit)]
    demands += [facts.zstd_floor] if image.fatbin_compression == "zstd" else []
    return max((floor for floor in demands if not running.meets(floor)), key=lambda floor: floor.cuda, default=None)


def machine(around: Surroundings) -> Outcome:
    """WSL2 and Tegra differ in where the driver comes from and in which images fit."""
    host = around.host()
    if host.tegra is not None:
        release = host.l4t
        known = [row for row in around.cuda().jetpacks if release is not None and row.l4t <= release]
        if not known:
            return warn(f"Jetson, L4T {host.tegra}: an unknown release", "Update to a current JetPack.")
        return ok(f"Jetson, L4T {host.tegra} (JetPack {known[-1].name}, CUDA {known[-1].cuda}), {host.platform}")
    if host.wsl:
        if not host.gpus:
            return warn("WSL2, and its GPU driver is not visible", "Install NVIDIA's driver in Windows, then: wsl --shutdown")
        return ok(f"WSL2, driver from Windows, {host.platform}")
    return ok(f"{host.platform}, neither WSL2 nor Jetson")


def processor(around: Surroundings) -> Outcome:
    """The level that the images were compiled for against what the processor has."""
    from sdrun.catalog.cpu_levels import load_cpu_levels
    from sdrun.catalog.targets import targets
    from sdrun.probe.machine import read_text

    if around.from_file:
        return skip("the facts describe another host")
    match = _FLAGS.search(read_text(around.root / "proc/cpuinfo"))
    if match is None:
        return skip("no x86 processor")
    levels, has = load_cpu_levels(), set(match[1].split())
    reached = [level for level, flags in levels.items() if flags <= has]
    level = reached[-1] if reached else "below x86-64"
    needed = {target.cpu_level for target in targets().rows if target.platform == "linux/amd64"}
    missing = sorted(set().union(*(levels.get(name, frozenset()) for name in needed)) - has)
    if missing:
        seen = f"processor is {level}, images need {', '.join(sorted(needed))} (it lacks {', '.join(missing[:4])})"
        return fail(
            seen, f"Use a newer machine, or add a target with cpu_level: {level} to images/targets.yaml and build it.", 9
        )
    return ok(f"{level}, images need {', '.join(sorted(needed))}")


def overrides(around: Surroundings) -> Outcome:
    """What was set by hand, said aloud; a variable that nobody reads is most likely a typing mistake."""
    environ = around.environ
    unknown = sorted(name for name in environ if name.startswith("SDRUN_") and name not in VARIABLES)
    given = _given(environ)
    if unknown:
        return warn(f"{', '.join(unknown)}: sdrun knows no such variable", f"unset {' '.join(unknown)}")
    if not given:
        return ok("none set")
    facts = [name for name in FACT_VARIABLES if environ.get(name)]
    if not facts:
        return ok(given)
    try:
        notes = [note for note in around.host().notes if _is_about_override(note, around)]
    except SdrunError as error:
        return failed_by(error)
    return warn(". ".join([given, *(note.rstrip(".") for note in notes)]), f"unset {' '.join(facts)}")


def _given(environ: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={environ[name][:80]}" for name in (*VARIABLES, *CUDA_VARIABLES) if environ.get(name))
