"""Which image runs, on which device: host facts and an index put to the resolver, and the chosen image brought to this machine.

The index is the file the user named, else the registry's, else it is made from the labels of the images in the runtime's own
store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdrun.catalog.runtimes import readable_here
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.labels import CPU_LEVEL
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Build, Policy
from sdrun.core.target import TargetId
from sdrun.errors import RuntimeUnavailable, UsageProblem, VerificationFailed, from_refusal
from sdrun.launch import jitcache
from sdrun.launch.localimages import index_of_one, local_index, of_target
from sdrun.launch.sources import Sources, as_announced, check_layers, local_copy, pulled, trusted
from sdrun.runtime.protocol import ContainerRuntime, GpuRequest, LocalImage


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says about where to run. `index`: a file; None: the registry of `sources`, and where that names none, the
    images that are here. `image`: one image by tag, digest, id or target; the same checks hold for it."""

    gpu: str = "auto"
    allow_cpu: bool = False
    allow_jit: bool = True
    image: str | None = None
    index: str | None = None
    sources: Sources = field(default_factory=Sources)

    @property
    def by_index(self) -> bool:
        """Whether the image is looked for in an index that was published, rather than on this machine or by its own name."""
        if self.index is not None or self.image is None:
            return self.index is not None or bool(self.sources.references)
        return bool(self.sources.references) and _is_target(self.image)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan, the host it is for, and the image: `local` is None where it would have to be pulled first and nothing was to be
    fetched. `notes` are for people. `allow_jit`: the driver may compile PTX, of the image or of a library in it."""

    plan: Plan
    host: HostFacts
    local: LocalImage | None
    notes: tuple[str, ...] = ()
    allow_jit: bool = True

    @property
    def image(self) -> str:
        """What to hand to the runtime: the content id of a local image, else the plan's reference by digest."""
        return self.local.id if self.local is not None else self.plan.image

    @property
    def processor_level(self) -> str:
        """The x86-64 level the image's host code was built for, empty where it does not say."""
        return self.local.labels.get(CPU_LEVEL, "") if self.local is not None else ""

    @property
    def compiled(self) -> jitcache.Entry | None:
        """Where what the driver compiles of it is kept between runs; None where it compiles nothing."""
        return jitcache.entry_of(self.plan, self.host, self.image)

    @property
    def gpu(self) -> GpuRequest | None:
        """What to hand over."""
        access = self.plan.gpu_access
        return None if access == "none" else GpuRequest(access, self.plan.handover.requests)


@dataclass(frozen=True, slots=True)
class Fetching:
    """How what is missing may be had. `pull`: from a registry; `build`: makes a target's image, None where that was not asked
    for; `progress` is told of a pull as (layer, bytes done, bytes in all)."""

    pull: bool = True
    build: Callable[[Build], None] | None = None
    progress: Callable[[str, int, int], None] | None = None
    say: Callable[[str], None] = field(default=lambda text: None)


def choose(
    connect: Callable[[], ContainerRuntime], wishes: Wishes, fetching: Fetching, environ: Mapping[str, str] = os.environ
) -> Chosen:
    """The image to run here. `connect` gives the same runtime each time; it is called while the GPUs' driver is asked, which
    takes as long. Raises the resolver's refusal as an error, RuntimeUnavailable (`image-missing`) where no engine image is on
    this machine at all, BadConfiguration for a bad index or bad facts, and what connecting, a pull or a build raises."""
    from sdrun.probe.overrides import current_host

    host, runtime = current_host(environ, lambda: connect().facts()), connect()
    policy = _policy(wishes, environ)
    index = readable_here(_index(runtime, wishes, fetching), host.runtime)
    answer = _resolve(host, index, policy)
    if isinstance(answer, Refusal) and answer.change.build and fetching.build and _build_suffices(answer, wishes):
        fetching.build(answer.change.build)
        answer = _resolve(host, local_index(runtime)[0], _policy(wishes, environ))
    if isinstance(answer, Refusal):
        raise _refused(answer, index, wishes)
    local = _present(runtime, answer, index, wishes, fetching, host)
    chosen = Chosen(answer, host, local, host.notes, wishes.allow_jit)
    return replace(chosen, notes=(*host.notes, *jitcache.notes(answer, chosen.compiled)))


def _policy(wishes: Wishes, environ: Mapping[str, str]) -> Policy:
    from sdrun.probe.visible import visible_devices

    return Policy(
        gpu=wishes.gpu,
        allow_cpu=wishes.allow_cpu,
        allow_jit=wishes.allow_jit,
        image=wishes.image if wishes.by_index else None,  # else the index holds that image alone
        visible=visible_devices(environ),
        device_order="pci-bus-id" if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" else "fastest-first",
    )


def _resolve(host: HostFacts, index: Index, policy: Policy) -> Plan | Refusal:
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.core.resolve import resolve

    return resolve(host, index, policy, load_cuda_facts())


def _build_suffices(refusal: Refusal, wishes: Wishes) -> bool:
    """Whether the image alone is missing: a host without a GPU also needs --allow-cpu, another refusal a newer driver."""
    change = refusal.change
    return wishes.image is None and not (change.driver or change.gpu_access or (change.allow_cpu and not wishes.allow_cpu))


def _refused(refusal: Refusal, index: Index, wishes: Wishes) -> Exception:
    if wishes.index is None and not index.images and refusal.change.build and (refusal.id != "no-gpu" or wishes.allow_cpu):
        target = refusal.change.build.target
        return RuntimeUnavailable(
            f"no engine image is on this machine; {target} would fit", f"sdrun build {target}", id="image-missing"
        )
    return from_refusal(refusal.id, refusal.exit_code, refusal.message, refusal.remedy)


def _index(runtime: ContainerRuntime, wishes: Wishes, fetching: Fetching) -> Index:
    if wishes.index is not None:
        from sdrun.catalog.indexfile import read_index

        return read_index(Path(wishes.index) if wishes.index != "-" else "-")
    if wishes.by_index:
        return wishes.sources.index(fetching.say)
    if wishes.image is None:
        index, notes = local_index(runtime)
        for note in notes:
            fetching.say(note)
        return index
    return index_of_one(_named(runtime, wishes.image, wishes.sources, fetching), wishes.image)


def _is_target(text: str) -> bool:
    try:
        TargetId.parse(text)
    except ValueError:
        return False
    return True


def _named(runtime: ContainerRuntime, reference: str, sources: Sources, fetching: Fetching) -> LocalImage:
    if not reference.strip():
        raise UsageProblem("--image names no image", "Name a tag, digest, id or target, or leave --image out.")
    image = runtime.image(reference)
    if image is not None:
        return image
    if (image := of_target(runtime, reference)) is not None:
        return image
    if not fetching.pull or reference.startswith("sha256:"):
        raise RuntimeUnavailable(
            f"the image {reference} is not on this machine", "Pull it, or build it: sdrun build TARGET", id="image-missing"
        )
    fetching.say(f"pulling {reference}")
    return runtime.pull(reference, fetching.progress)


def _present(
    runtime: ContainerRuntime, plan: Plan, index: Index, wishes: Wishes, fetching: Fetching, host: HostFacts
) -> LocalImage | None:
    """The image that was chosen, brought here where that is allowed, and none but one that is as it should be: signed as the
    settings demand, and what the registry's index says of it."""
    image = local_copy(runtime, wishes.sources, plan.image)
    _check_trust(plan.image, image, wishes.sources, fetching)
    if image is None and not fetching.pull:
        return None
    if image is None and plan.image.startswith("sha256:"):
        raise RuntimeUnavailable(
            f"the image {plan.image[:19]} is not on this machine", f"sdrun build {plan.target}", id="image-missing"
        )
    if image is None:
        check_layers(next((row for row in index.images if row.image == plan.image), None), host.runtime)
        image = pulled(runtime, wishes.sources, plan.image, fetching.progress, fetching.say)
        if "@" not in plan.image:  # an index file may name tags; their digest is known only now
            _check_trust(plan.image, image, wishes.sources, fetching)
    if wishes.by_index and wishes.index is None:
        as_announced(image, next(row for row in index.images if row.image == plan.image))
    return image


def _check_trust(name: str, image: LocalImage | None, sources: Sources, fetching: Fetching) -> None:
    """Signatures are demanded of what comes from a registry; an image that was built here has none."""
    if sources.policy is None or (not fetching.pull and image is None):
        return
    failure: VerificationFailed | None = None
    for digest in (name,) if "@" in name else image.digests if image else ():
        try:
            trusted(sources, digest, fetching.say)
            return
        except VerificationFailed as fault:
            failure = failure or fault
    if failure is not None:
        raise failure
