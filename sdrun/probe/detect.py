"""Host facts from the machine itself: NVML, libcuda, nvidia-smi, then /proc and /sys, until one answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sdrun.core.host import Gpu, HostFacts, RuntimeFacts
from sdrun.core.version import DriverVersion
from sdrun.probe.answer import Answer
from sdrun.probe.cdi import stale_notes
from sdrun.probe.driver import ask_driver
from sdrun.probe.libraries import Libraries, find_libraries, has_signs, probe_environment
from sdrun.probe.machine import Machine, read_machine
from sdrun.probe.smi import ask_smi, find_smi
from sdrun.probe.sysfs import ask_sysfs, read_driver_version
from sdrun.probe.visible import order_note

LIMIT_S = 20.0  # without nvidia-persistenced every NVML start wakes each GPU, one or two seconds a piece
HUNG_LIMIT_S = 2.0

RuntimeSource = RuntimeFacts | Callable[[], RuntimeFacts | None] | None


def detect(
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    runtime: RuntimeSource = None,
    *,
    limit_s: float = LIMIT_S,
) -> HostFacts:
    """Looks at the machine under `root`. CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER do not act here: all GPUs are reported, in
    the order of the PCI bus, and what those variables ask for is for the resolver (sdrun.probe.visible). Never raises for what
    a driver does: a library that fails, crashes or takes longer than `limit_s` seconds is a note, and the next probe is asked;
    after the first that hangs, each other gets at most two seconds. `runtime` may be a function: it is called once, while the
    driver is being asked in a process of its own, and only what it raises is raised."""
    asked: list[RuntimeFacts | None] = []

    def ask_runtime() -> None:
        if not asked:
            asked.append(runtime() if callable(runtime) else runtime)

    libraries = find_libraries(root, environ)
    answers = _ask(root, environ, libraries, limit_s, ask_runtime)
    ask_runtime()
    host = replace(_judge(root, answers, libraries), runtime=asked[0])
    return replace(host, notes=tuple(dict.fromkeys((*host.notes, *order_note(environ, host)))))


def _judge(root: Path, answers: list[Answer], libraries: Libraries) -> HostFacts:
    """The facts that follow from the probes' answers, and from files where the probes are silent."""
    machine, kernel = read_machine(root), read_driver_version(root)
    main = max((answer for answer in answers if answer.answered), key=lambda answer: bool(answer.gpus), default=None)
    if main is None or not main.gpus:
        last = ask_sysfs(root)
        answers.append(last)
        main = main or (last if last.driver_version or last.notes else Answer("none", answered=False))
    version = next((answer.driver_version for answer in (main, *answers) if answer.driver_version), kernel)
    notes = [*_findings(answers, main), *_mismatch(kernel, libraries.nvml_version, main), *_wsl(machine, libraries)]
    return HostFacts(
        platform=machine.platform,
        driver_version=version,
        cuda_driver=main.cuda_driver,
        gpus=_with_shared_memory(main.gpus, machine),
        wsl=machine.wsl,
        tegra=machine.tegra,
        probe=main.probe,
        notes=(*notes, *stale_notes(root, version)),
    )


def _ask(
    root: Path, environ: Mapping[str, str], libraries: Libraries, limit_s: float, meanwhile: Callable[[], None]
) -> list[Answer]:
    """The driver's own probes, as far as there is anything to ask: on a machine without a driver none is started."""
    answers: list[Answer] = []
    inside = probe_environment(environ, libraries.folders)
    # Under another root the loader would find the libraries of `/`, unless they lie where probe_environment points it to.
    if libraries.found or (root == Path("/") and has_signs(root)):
        answers += ask_driver(inside, limit_s, min(HUNG_LIMIT_S, limit_s), meanwhile)
    if not any(answer.answered for answer in answers) and (program := find_smi(root, environ)):
        hung = any(answer.hung for answer in answers)
        answers.append(ask_smi(program, inside, min(HUNG_LIMIT_S, limit_s) if hung else limit_s))
    return answers


def _findings(answers: list[Answer], main: Answer) -> list[str]:
    notes: list[str] = []
    for answer in answers:
        if answer.answered and main.gpus and answer is not main:  # its GPUs, left out there, are in use here
            notes.append(f"{answer.probe} shows no GPU that can be used: the facts are those of {main.probe}.")
        else:
            notes += answer.notes
    return notes


def _with_shared_memory(gpus: tuple[Gpu, ...], machine: Machine) -> tuple[Gpu, ...]:
    # A Tegra's GPU has no memory of its own, and NVML answers "not supported" there.
    if machine.tegra is None:
        return gpus
    return tuple(gpu if gpu.memory_mib else replace(gpu, memory_mib=machine.memory_mib) for gpu in gpus)


def _mismatch(kernel: DriverVersion | None, library: DriverVersion | None, main: Answer) -> list[str]:
    if kernel is None or library is None or kernel == library or main.gpus:
        return []
    return [
        f"The kernel module of the NVIDIA driver is {kernel}, libnvidia-ml.so.1 is {library}: restart the machine, so that "
        "the module of the installed driver is loaded."
    ]


def _wsl(machine: Machine, libraries: Libraries) -> list[str]:
    if not machine.wsl or libraries.found:
        return []
    return ["This is WSL2, and /usr/lib/wsl/lib holds no CUDA driver: install NVIDIA's driver in Windows (not in Linux)."]
