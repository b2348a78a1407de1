"""A refusal's change, applied: what the same call would then be asked."""

from __future__ import annotations

from dataclasses import replace

from sdrun.core.choose import Request
from sdrun.core.facts import Floor
from sdrun.core.host import HostFacts, RuntimeFacts
from sdrun.core.index import IndexImage
from sdrun.core.policy import Build, Change, Policy


def applied(change: Change, request: Request) -> Request:
    """`request` after `change`. A host's driver becomes the least that meets the demand; nothing is ever taken away."""
    host = request.host if change.driver is None else _updated(request.host, change.driver)
    if change.gpu_access:
        runtime = host.runtime or RuntimeFacts("docker", "")
        host = replace(host, runtime=replace(runtime, nvidia_runtime=True))
    index = request.index
    if change.build is not None:
        index = replace(index, images=(*index.images, published(change.build)))
    return Request(host, index, _policy(change, request.policy), request.facts)


def published(build: Build) -> IndexImage:
    """The row an index would have after `build` was published."""
    return IndexImage(
        target=build.target,
        image=f"{build.target}@to-be-built",
        platform=build.platform,
        toolkit=build.toolkit,
        sass=build.sass,
        ptx=build.ptx,
        fatbin_compression=None if build.toolkit is None else "lz4",
    )


def _updated(host: HostFacts, floor: Floor) -> HostFacts:
    """The host with a driver that meets `floor`; one that is newer already keeps its number."""
    version = host.driver_version
    if floor.driver is not None and (version is None or version < floor.driver):
        version = floor.driver
    spoken = floor.cuda if host.cuda_driver is None else max(host.cuda_driver, floor.cuda)
    derived = host.cuda_driver is None and floor.driver is not None and version == floor.driver
    return replace(host, driver_version=version, cuda_driver=None if derived else spoken)


def _policy(change: Change, policy: Policy) -> Policy:
    return replace(
        policy,
        gpu=change.gpu or policy.gpu,
        allow_cpu=policy.allow_cpu or change.allow_cpu,
        allow_jit=policy.allow_jit or change.allow_jit,
        image=None if change.any_image else policy.image,
        visible=None if change.unset_visible else policy.visible,
    )
