"""The image that runs here, published into a registry of the tests and taken away from this machine, so that it has to be
pulled; put back at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sdrun.core.labels import PRUNED
from tests.gpu.running import ROOT, Sdrun, docker
from tests.registries.server import Logged, RegistryProcess


@dataclass(frozen=True)
class Shop:
    """A registry that holds `target` and the other targets that were published: `repository` is its reference, `digests` by
    target; `image` is the content id of `target` on this machine, and `tags` its names there."""

    server: RegistryProcess
    repository: str
    target: str
    image: str
    tags: tuple[str, ...]
    digests: dict[str, str]
    rows: dict[str, dict[str, Any]]

    @property
    def reference(self) -> str:
        """The published image by its digest."""
        return f"{self.repository}@{self.digests[self.target]}"

    def asked(self, since: int = 0) -> list[Logged]:
        """The requests to the registry, but for so many."""
        return self.server.requests()[since:]


@contextmanager
def published(sdrun: Sdrun, target: str, image: str, others: Sequence[str], form: str, folder: Path) -> Iterator[Shop]:
    """Publishes `target`, whose content id is `image`, and the targets `others` that are here, all packed in one form (`zstd`,
    `gzip`), then removes the image of `target` from this machine. Afterwards it is there as before."""
    tags = names_of(image)
    publisher = ready_to_publish(sdrun, target, image, folder)
    server = RegistryProcess(folder / "registry", tls=None, auth="none")
    server.start()
    try:
        repository = f"{server.host}/team/sdrun"
        rows: dict[str, dict[str, Any]] = {}
        for name in (target, *others):
            answer = publisher.answer("publish", name, "--registry", repository, "--no-build", "--compression", form)
            rows |= {row["target"]: row for row in answer["images"]}
        shop = Shop(server, repository, target, image, tags, {name: row["digest"] for name, row in rows.items()}, rows)
        try:
            docker("rmi", *tags)
            assert not is_here(image), f"something else keeps the image {image}"
            yield shop
        finally:
            put_back(shop)
    finally:
        server.stop()


def ready_to_publish(sdrun: Sdrun, target: str, image: str, folder: Path) -> Sdrun:
    """An image with pruned libraries is published only where a run of it on a GPU is recorded. It is run now, as the refusal
    says, and recorded in a copy of the checkout where that lacks it, which is returned in place of the checkout."""
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
    if labels.get(PRUNED) != "yes":
        return sdrun
    row = sdrun("selftest", "--image", image, "--record-run", str(folder / f"{target}.json"), "--cublas", "0.0.0.0")
    assert row.returncode == 0, row.stderr
    copy = folder / "checkout"
    for name in ("sdrun", "images", "templates", "models/shapes"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    runs = copy / "images" / "gpu_runs.yaml"
    text = runs.read_text(encoding="utf-8")
    if json.loads(row.stdout.strip().removeprefix("- "))["library"] not in text:
        runs.write_text(f"{text.replace('runs: []', 'runs:').rstrip()}\n{row.stdout.rstrip()}\n", encoding="utf-8")
    return replace(sdrun, code=copy)


def names_of(image: str) -> tuple[str, ...]:
    """The tags of an image. Skips where it was pulled from a registry: removed, it would lose that name for good."""
    found = json.loads(docker("image", "inspect", image))[0]
    if found["RepoDigests"]:
        pytest.skip(f"{image} was pulled from a registry; a test that removes it would take away {found['RepoDigests'][0]}")
    return tuple(found["RepoTags"])


def is_here(name: str) -> bool:
    """Whether docker has an image of that name, digest or id."""
    return bool(docker("image", "inspect", "--format", "{{.Id}}", name, check=False))


def put_back(shop: Shop) -> None:
    """The image of this machine as it was: pulled if no test did so, under its own tags alone."""
    if not is_here(shop.reference):
        docker("pull", "--quiet", shop.reference)
    for tag in shop.tags:
        docker("tag", shop.reference, tag)
    docker("rmi", shop.reference)
    assert docker("image", "inspect", "--format", "{{.Id}}", shop.tags[0]) == shop.image
