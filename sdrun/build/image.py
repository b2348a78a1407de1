"""`build`: a target becomes an image in the local container runtime, proven before it gets its tag."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.build.base import ensure_base
from sdrun.build.building import BuildRequest, OnStep, run_build
from sdrun.build.client import BuildClient, find_client
from sdrun.build.compilercache import carried
from sdrun.build.disk import disk_errors
from sdrun.build.proof import Proof
from sdrun.build.readback import folder, prove_image, recorded_proof, save_image, save_proof
from sdrun.build.source import FetchedSource, fetch
from sdrun.build.toolkit import LocalToolkit
from sdrun.build.whole import check_against_whole
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.gpu_runs import gpu_runs
from sdrun.core.capability import Arch
from sdrun.core.engine import Engine
from sdrun.core.gpurun import awaited
from sdrun.core.index import IndexImage
from sdrun.core.labels import BASE_DIGEST, RECIPE, image_labels, index_image_from_labels
from sdrun.core.selftest import NOT_RUN
from sdrun.core.target import Base, Target
from sdrun.errors import RuntimeUnavailable
from sdrun.render.dockerfile import CONTEXT_SOURCE, render
from sdrun.resources import cache_root
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

Say = Callable[[str], None]
# Draws recorded pictures with an image that was read back and says in one line what came of it (NOT_RUN and why, where this
# machine has no device for the image). Raises EngineFailed where the image computes wrongly.
Exercise = Callable[[LocalImage, ContainerRuntime], str]
REPOSITORY = "sdrun"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides an image's content: `files` of the build context, `source` of the engine, `toolkit` of the build
    host where the toolchain is `local`; `digest` names them all."""

    target: Target
    engine: Engine
    base: Base
    files: Mapping[str, str]
    source: FetchedSource
    toolkit: LocalToolkit | None = None

    @property
    def digest(self) -> str:
        """sha256 over the rendered files, the packed sources and the local toolkit. The base's content is left out: a base that
        was pulled again would otherwise rebuild everything; `--force` does that."""
        parts: dict[str, object] = {"files": dict(self.files), "source": self.source.digest}
        if self.toolkit is not None:
            parts["toolkit"] = self.toolkit.digest
        text = json.dumps(parts, sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def reference(self) -> str:
        """The local name of its image: `sdrun:<engine>-<target>`."""
        return f"{REPOSITORY}:{self.target.tag}"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A proven image. `reference` is its tag, `row` what an index says of it (naming it by content id, sized as a pull),
    `cached` whether it was there already, `seconds` how long this call took, `log` the build's log (None where cached);
    `awaits` the archs on whose GPUs it must yet run before it counts as proven (its libraries were pruned, and
    images/gpu_runs.yaml records no run of them)."""

    reference: str
    row: IndexImage
    proof: Proof
    recipe: str
    cached: bool
    seconds: float
    log: Path | None
    awaits: tuple[Arch, ...] = ()


def build(
    target: Target,
    engine: Engine,
    base: Base,
    runtime: ContainerRuntime,
    *,
    say: Say,
    on_step: OnStep,
    force: bool = False,
    jobs: int | None = None,
    cache: Path | None = None,
    toolkit: LocalToolkit | None = None,
    compiler_cache: Path | None = None,
    exercise: Exercise | None = None,
) -> BuiltImage:
    """The image of `target`, built unless the same recipe was built before; proven either way. Two builds of one target wait
    for each other. `toolkit` goes with the toolchain `local`; `compiler_cache` is a folder that the compiler's cache is carried
    from and to; `exercise` is part of the proof where one is given. Raises the errors of `fetch`, `find_client`, `ensure_base`,
    `run_build`, `prove` and `exercise`."""
    from filelock import FileLock

    started = time.monotonic()
    root = cache or cache_root()
    recipe = Recipe(target, engine, base, render(target, engine, base), fetch(engine, root, say), toolkit)
    (root / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(root / "locks" / f"{target.tag}.lock"), disk_errors(root):
        found = None if force else runtime.image(recipe.reference)
        log = None
        if found is None or found.labels.get(RECIPE) != recipe.digest:
            found, log = _build(recipe, runtime, root, say, on_step, force, jobs, compiler_cache, exercise)
            cached = False
        else:
            cached = True
        proof = recorded_proof(root, found)
        if proof is None:
            proof = _prove_recipe(found, recipe, runtime, root, exercise)
        elif cached and exercise is not None and (not proof.selftest or proof.selftest.startswith(NOT_RUN)):
            proof = _exercised(found, proof, runtime, root, exercise)
    row = index_image_from_labels(found.labels, found.id, found.platform, proof.transfer_bytes)
    awaits = awaited(target, gpu_runs(), proof.pruned_library)
    return BuiltImage(recipe.reference, row, proof, recipe.digest, cached, time.monotonic() - started, log, awaits)


def _build(
    recipe: Recipe,
    runtime: ContainerRuntime,
    root: Path,
    say: Say,
    on_step: OnStep,
    force: bool,
    jobs: int | None,
    compiler_cache: Path | None,
    exercise: Exercise | None,
) -> tuple[LocalImage, Path]:
    """Builds under a name nobody uses, proves, and only then gives the image its tag."""
    client = find_client(runtime.name)
    start = ensure_base(recipe.base, runtime, client, say)
    log = root / "logs" / f"{recipe.target.tag}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    trial = f"{REPOSITORY}-trial:{recipe.target.tag}"
    arguments = {"BASE": start.reference, **({"JOBS": str(jobs)} if jobs else {})}
    if force:
        arguments["REBUILD"] = str(time.time_ns())
    say(f"building {recipe.reference} with {client.program} ({client.kind})")
    with tempfile.TemporaryDirectory(dir=folder(root / "contexts"), prefix=f"{recipe.target.tag}-") as scratch:
        context = Path(scratch)
        _stage(recipe, context)
        labels = {RECIPE: recipe.digest, BASE_DIGEST: start.id}
        with carried(client, start.reference, compiler_cache, say):
            run_build(client, BuildRequest(context, trial, labels, arguments), log, on_step)
        if recipe.target.pruned:
            say("linking the whole libraries, to hold the pruned ones against them")
            _hold_against_whole(recipe.target, trial, context, client, arguments, runtime, root)
    image = runtime.image(trial)
    if image is None:
        raise RuntimeUnavailable(
            f"{client.program} ended well but {runtime.name} has no image {trial}",
            "Make the command line and the socket speak to the same daemon (DOCKER_HOST, docker context).",
            id="image-missing",
        )
    old = runtime.image(recipe.reference)
    try:
        _prove_recipe(image, recipe, runtime, root, exercise)
        _tag(client, trial, recipe.reference)
    finally:
        _client_run(client, "rmi", trial)
    if old is not None and old.id != image.id:
        _client_run(client, "rmi", old.id)  # refused while a container uses it: then it stays, without a name
    return image, log


def _hold_against_whole(
    target: Target,
    trial: str,
    context: Path,
    client: BuildClient,
    arguments: Mapping[str, str],
    runtime: ContainerRuntime,
    root: Path,
) -> None:
    """See `check_against_whole`; an image that fails it is gone."""
    image = runtime.image(trial)
    if image is None:
        return  # told by the caller
    try:
        with tempfile.TemporaryDirectory(dir=folder(root / "contexts"), prefix="proof-") as scratch:
            archive = Path(scratch) / "image.tar"
            save_image(image, archive, runtime)
            check_against_whole(archive, context, client, arguments, target, load_cuda_facts())
    except BaseException:
        _client_run(client, "rmi", trial)
        raise


def _stage(recipe: Recipe, context: Path) -> None:
    for name, text in recipe.files.items():
        (context / name).write_text(text, encoding="utf-8")
    (context / CONTEXT_SOURCE).hardlink_to(recipe.source.tar)
    if recipe.toolkit is not None:
        recipe.toolkit.copy_to(context / "toolkit", recipe.engine.cublas_libraries if recipe.target.pruned else ())


def _prove_recipe(image: LocalImage, recipe: Recipe, runtime: ContainerRuntime, root: Path, exercise: Exercise | None) -> Proof:
    labels = {**image_labels(recipe.target, recipe.engine, recipe.base), RECIPE: recipe.digest}
    proof = prove_image(image, recipe.target, recipe.engine, labels, runtime, root)
    if exercise is not None:
        return _exercised(image, proof, runtime, root, exercise)
    save_proof(root, image, proof)
    return proof


def _exercised(image: LocalImage, proof: Proof, runtime: ContainerRuntime, root: Path, exercise: Exercise) -> Proof:
    """The proof with what drawing came to."""
    proof = replace(proof, selftest=exercise(image, runtime))
    save_proof(root, image, proof)
    return proof


def _tag(client: BuildClient, trial: str, reference: str) -> None:
    done = _client_run(client, "tag", trial, reference)
    if done.returncode != 0:
        raise RuntimeUnavailable(
            f"{client.program} could not tag the image as {reference}: {done.stderr.strip()[:300]}",
            "Look into the container runtime's log (journalctl -u docker), then run again.",
            id="runtime-failed",
        )


def _client_run(client: BuildClient, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = client.argv(*arguments)
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, env=client.environment())
