"""The two sentences of a refusal: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdrun.core.choose import Request, Stuck, judge, offers
from sdrun.core.code import Match
from sdrun.core.device import Device, visible_devices
from sdrun.core.driver import driver_of, jetpack_for
from sdrun.core.facts import Floor
from sdrun.core.plan import Plan, Reason
from sdrun.core.policy import Change


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refusal before it is put into words: the change that works and the plan it leads to."""

    request: Request
    stuck: Stuck
    id: Reason
    change: Change
    plan: Plan

    @property
    def devices(self) -> tuple[Device, ...]:
        """Every device an image was tried on, once, in order."""
        return tuple(dict.fromkeys(device for team in self.stuck.teams for device in team))


def message(verdict: Verdict) -> str:
    """What is wrong, in one sentence."""
    request, devices = verdict.request, _listed(verdict.devices)
    match verdict.id:
        case "no-gpu":
            return _no_gpu(verdict)
        case "gpu-not-found":
            every = visible_devices(request.host, request.policy)
            return f"--gpu {request.policy.gpu[:60]} names no GPU here; there is {_listed(every)}."
        case "gpu-access-unavailable":
            return _no_access(verdict)
        case "driver-too-old":
            driver = driver_of(request.host, request.facts)
            needed = update(verdict.change.driver, request, verdict.devices) if verdict.change.driver else "another"
            return f"Driver {driver} is too old: {verdict.plan.target} for {devices} needs {needed} or newer."
        case "jit-forbidden":
            return f"Only PTX fits {devices}, and --no-jit forbids the driver to compile it."
        case "cpu-not-allowed":
            return "What was asked for runs on the CPU, which is never used unless it is allowed."
        case "mixed-gpus":
            return _mixed(verdict)
        case "platform-mismatch":
            return _other_platform(request)
        case "no-code-for-capability":
            return _no_code(verdict)
        case _:
            nearest = next((row for row in verdict.stuck.rejected if row.reason == verdict.id), None)
            if nearest is None:
                return f"The {_kind(request)} PTX needs a newer driver than the last there is for {devices}."
            return f"No {_kind(request)} image suits {devices}; the nearest is {nearest.target}: {nearest.detail}."


def _no_gpu(verdict: Verdict) -> str:
    host = verdict.request.host
    if not host.gpus:
        return "No NVIDIA GPU was found on this host."
    if not verdict.stuck.teams:
        return "CUDA_VISIBLE_DEVICES hides every GPU of this host."
    return f"No NVIDIA driver runs on this host, which has {_listed(verdict.devices)}."


def _no_access(verdict: Verdict) -> str:
    runtime, devices = verdict.request.host.runtime, _listed(verdict.devices)
    if runtime is None:
        return f"No container runtime was found that could be given {devices}."
    if runtime.cdi_devices:
        return f"{runtime.name} knows CDI devices, but none for {devices}, and NVIDIA's runtime is not registered."
    return f"{runtime.name} cannot give {devices} to a container: it knows no CDI device and no NVIDIA runtime."


def _other_platform(request: Request) -> str:
    here, wanted, on_cpu = request.host.platform, request.policy.image, request.policy.gpu == "none"
    every = [row for row in request.index.images if wanted in (None, row.image, row.tag, row.target)]
    platforms = ", ".join(sorted({row.platform for row in every if row.is_cpu == on_cpu}))
    return f"The {_kind(request)} {'CPU' if on_cpu else 'CUDA'} images are for {platforms} only; this host is {here}."


def _kind(request: Request) -> str:
    return "published" if request.index.published else "local"


def _no_code(verdict: Verdict) -> str:
    request = verdict.request
    if request.policy.image is not None and not verdict.stuck.rejected:
        return f"No {_kind(request)} image is called {request.policy.image[:200]!r}."
    if not verdict.devices:
        return f"There is no {_kind(request)} cpu image for {request.host.platform}."
    kinds = sorted({device.capability for device in verdict.devices})
    names = ", ".join(str(kind) for kind in kinds)
    where = f"compute capability {names} on {request.host.platform}: {_listed(verdict.devices)}"
    if request.policy.image is not None:
        return f"The image {request.policy.image[:200]!r} holds no code for {where}."
    return f"No {_kind(request)} image holds code for {where}."


def _mixed(verdict: Verdict) -> str:
    """Names the image that serves the most GPUs and the GPUs it leaves out."""
    request, devices = verdict.request, verdict.devices
    driver = driver_of(request.host, request.facts)
    served: dict[int, tuple[Match, set[str]]] = {}
    for device in devices:
        for row in offers(request, (device,)):
            if row.path != "cpu" and judge(row, driver, request.policy) is None:
                served.setdefault(row.position, (row, set()))[1].add(device.uuid)
    if not served:  # one of them alone would need a newer driver as well
        return f"No one image runs on all {len(devices)} GPUs: {_listed(devices)}."
    best, reached = min(served.values(), key=lambda entry: (-len(entry[1]), entry[0].order))
    odd = _listed([device for device in devices if device.uuid not in reached])
    return f"No one image runs on all {len(devices)} GPUs: {best.image.target} runs on {len(reached)} of them, not on {odd}."


def _listed(devices: Sequence[Device]) -> str:
    names = [device.label for device in devices[:3]]
    if len(devices) > len(names):
        names.append(f"{len(devices) - len(names)} more")
    return ", ".join(names) if names else "no GPU"


def remedy(verdict: Verdict) -> str:
    """What to do, in one sentence; where several things are needed, all of them."""
    change, request = verdict.change, verdict.request
    steps = []
    if change.driver is not None:
        steps.append(f"install {update(change.driver, request, verdict.devices)} or newer")
    if change.unset_visible:
        steps.append("unset CUDA_VISIBLE_DEVICES")
    if change.gpu_access:
        steps.append(_access_step(verdict))
    if change.build is not None:
        make = "build and publish" if request.index.published else "build"
        steps.append(f"{make} the target {change.build.target} (sdrun build {change.build.target})")
    if change.any_image:
        steps.append("leave out --image")
    if change.allow_jit:
        steps.append("leave out --no-jit")
    if change.gpu is not None:
        steps.append("leave out --gpu" if change.gpu == "auto" else f"run with --gpu {change.gpu}")
    if change.allow_cpu and not (request.policy.allow_cpu and steps):
        steps.append("allow the CPU with --allow-cpu" if request.policy.gpu == "none" else "run on the CPU with --allow-cpu")
    text = ", then ".join(steps)
    return text[:1].upper() + text[1:] + "."


def _access_step(verdict: Verdict) -> str:
    runtime = verdict.request.host.runtime
    if runtime is None:
        return "install and start Docker or Podman with the NVIDIA Container Toolkit"
    if runtime.cdi_devices:
        return "renew the CDI specification: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    return "install the NVIDIA Container Toolkit and run: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def update(floor: Floor, request: Request, devices: Sequence[Device]) -> str:
    """What to install to meet `floor`: a JetPack on Jetson, else a driver by number, else by the CUDA version it must speak."""
    host = request.host
    if host.tegra is not None:
        for device in devices:
            if jetpack := jetpack_for(floor, device.capability, request.facts):
                return jetpack
    if floor.driver is None or (host.driver_version is not None and host.driver_version >= floor.driver):
        return f"an NVIDIA driver that speaks CUDA {floor.cuda}"
    return f"NVIDIA driver {floor.driver}"
