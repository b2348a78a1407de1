"""Checks of the container runtime: that it answers, that it can hand over the GPU, and that what it starts really runs."""

from __future__ import annotations

import os

from sdrun.core.access import access_to
from sdrun.core.device import all_devices
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import Plan
from sdrun.core.resolve import resolve
from sdrun.errors import SdrunError
from sdrun.launch.diagnosis import LogReader, diagnose, diagnose_runtime
from sdrun.launch.doctor.check import Outcome, fail, failed_by, ok, skip, warn
from sdrun.launch.doctor.surroundings import Surroundings, policy
from sdrun.launch.jitcache import entry_of
from sdrun.launch.localimages import local_index
from sdrun.runtime.protocol import ContainerSpec, GpuRequest

CDI_REMEDY = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
# The engine names its GPUs before it opens the model: a model that is not there makes it start CUDA and end, in a second.
START_CUDA = ("-m", "/no-model", "-p", "doctor")


def runtime(around: Surroundings) -> Outcome:
    """A container runtime that answers."""
    facts = around.runtime().facts()
    return ok(f"{facts.name} {facts.version} answers")


def gpu_access(around: Surroundings) -> Outcome:
    """A way to hand over GPUs, and one that fits the running driver."""
    host = around.host()
    if not host.gpus:
        return skip("no GPU to hand over")
    if host.runtime is None:
        return skip("no container runtime")
    devices = all_devices(host)
    access = access_to(devices, devices, host)
    stale = _stale(around, host)
    named = [name for name in host.runtime.cdi_devices if name.startswith("nvidia.com/gpu=")]
    if access is None:
        if named:
            return fail(f"CDI names {', '.join(named[:3])}, but not this host's GPUs", CDI_REMEDY, 6)
        return fail(f"{host.runtime.name} can hand over no GPU: neither CDI nor NVIDIA's runtime is set up", CDI_REMEDY, 6)
    if access.kind == "gpus-flag":
        return warn(f"by NVIDIA's runtime. {stale}", CDI_REMEDY) if stale else ok("by NVIDIA's runtime (--gpus)")
    if stale:
        return fail(stale, CDI_REMEDY, 6)
    if access.doubtful:
        singles = [name for name in named if name not in access.requests]
        return warn(
            f"by CDI: {', '.join(access.requests)}; of single devices it names only {', '.join(singles[:3])}", CDI_REMEDY
        )
    return ok(f"by CDI: {', '.join(access.requests[:3])}")


def _stale(around: Surroundings, host: HostFacts) -> str | None:
    """A CDI specification that names another driver's libraries: they are gone, and a start with it fails or mixes versions."""
    if around.from_file or host.driver_version is None:
        return None
    from sdrun.probe.cdi import read_specs

    for spec in read_specs(around.root)[0]:
        if spec.kind == "nvidia.com/gpu" and spec.driver_version not in (None, host.driver_version):
            return f"{spec.path} was made for driver {spec.driver_version}, {host.driver_version} is running"
    return None


def image(around: Surroundings) -> Outcome:
    """What `sdrun generate` would run here, and what it would run if that were not there."""
    if around.published is None and around.runtime.or_none() is None:
        return skip("no container runtime to look in, and no index named")
    index, host = around.index(), around.host()
    if not index.images:
        where = "the index is empty" if around.published is not None else "no engine image here and no index named"
        return fail(where, "sdrun build cpu (or name the published images: SDRUN_INDEX=FILE)", 4)
    if not host.gpus:
        cpu = [row for row in index.images if row.is_cpu and row.platform == host.platform]
        if cpu:
            return skip(f"no GPU; with --allow-cpu it would be {cpu[0].tag or cpu[0].target}")
        return fail("no GPU, and no image for the CPU", "sdrun build cpu", 4)
    answer = around.answer()
    if not isinstance(answer, Plan):
        return fail(answer.message, answer.remedy, answer.exit_code)
    rest = Index(index.engine, tuple(row for row in index.images if row.image != answer.image))
    second = resolve(host, rest, policy(around.environ), around.cuda())
    runner_up = f"then {_named(second)}" if isinstance(second, Plan) else "no other would run"
    seen = f"{_named(answer)}, {runner_up}"
    if answer.code_path == "ptx-jit":
        return warn(f"{seen}; {_compiled(around, answer)}", "sdrun resolve --explain (says which image to build)")
    return ok(seen)


def _compiled(around: Surroundings, plan: Plan) -> str:
    """What there is of the code that the driver compiles for the plan."""
    local = around.local_image(plan.image)
    entry = entry_of(plan, around.host(), local.id if local is not None else plan.image, around.cache)
    if entry is None or entry.left == 0:
        return "the driver compiles it on the first run"
    return f"what the driver compiled of it is kept: {entry.left / 1e6:.0f} MB in {entry.folder}"


def _named(plan: Plan) -> str:
    return f"{plan.target} ({plan.code_path})"


def container(around: Surroundings) -> Outcome:
    """Starts the engine in a container, shut off as every run is, and lets it say its version."""
    if around.runtime.or_none() is None:
        return skip("no container runtime")
    host = around.host.or_none()
    platform = host.platform if host is not None else None
    local = [row for row in local_index(around.runtime())[0].images if platform in (None, row.platform)]
    if not local:
        return skip("no engine image here")
    chosen = min(local, key=lambda row: (not row.is_cpu, row.target))
    if not chosen.is_cpu:
        return skip("the images here need a GPU")
    spec = ContainerSpec(chosen.image, ("--version",), user=_caller())
    return _run(around, spec, chosen.tag or chosen.target)


def _caller() -> str:
    return f"{os.getuid()}:{os.getgid()}"


def _run(around: Surroundings, spec: ContainerSpec, name: str) -> Outcome:
    """Runs to the end over a connection of its own, since other checks use theirs meanwhile."""
    log = LogReader()
    try:
        end = around.open_runtime().run(spec, log.feed)
    except SdrunError as error:
        return _start_failed(error)
    verdict = diagnose(log, end, expected_gpu=False)
    if verdict is not None:
        return fail(f"{name} started and failed: {verdict.message}", verdict.remedy, verdict.exit_code)
    return ok(f"{name} ran for {end.seconds:.2f} s as user {spec.user}, no network, read-only: exit 0")


def _start_failed(error: SdrunError) -> Outcome:
    """The runtime's own words, where the table knows them, say more than that a start failed."""
    verdict = diagnose_runtime(error.detail) if error.detail else None
    return failed_by(verdict.to_error() if verdict is not None else error)


def gpu_container(around: Surroundings) -> Outcome:
    """Starts the chosen image with the chosen GPU: the engine inside must name it."""
    host, answer = around.host(), around.answer.or_none()
    if not host.gpus:
        return skip("no GPU")
    if around.from_file:
        return skip("the facts describe another host")
    if not isinstance(answer, Plan) or answer.gpu_access == "none" or around.runtime.or_none() is None:
        return skip("nothing to start with the GPU (see above)")
    if around.local_image(answer.image) is None:
        return skip(f"{answer.target} is not here yet")
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(answer.handover.narrow_to)} if answer.handover.narrow_to else {}
    request = GpuRequest(answer.gpu_access, answer.handover.requests)
    spec = ContainerSpec(answer.image, START_CUDA, user=_caller(), environment=environment, gpu=request)
    log = LogReader()
    try:
        end = around.open_runtime().run(spec, log.feed)
    except SdrunError as error:
        return _start_failed(error)
    log.finish()
    if log.devices and log.fell_back_to_cpu is None:
        names = ", ".join(f"{device.name} ({device.capability})" for device in log.devices)
        return ok(f"{answer.target} sees {names} by {answer.gpu_access}")
    verdict = log.cause(end.code, end.out_of_memory, of_cpu_run=True)
    if verdict is None:
        return fail(f"{answer.target} started and saw no GPU", CDI_REMEDY, 6)
    return fail(f"{answer.target} started without the GPU: {verdict.message}", verdict.remedy, verdict.exit_code)
