"""A workload on the classes of a lock -> Kubernetes objects, compose files, quadlet units. Pure: file name -> text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sdrun.core import jit
from sdrun.core.lock import LockedClass
from sdrun.core.reference import Reference
from sdrun.core.workload import Cluster, Workload, shares
from sdrun.render.dockerfile import USER_ID
from sdrun.render.fleet import environment

PORT = 1234  # the engine's own default, and what sdrun serve tells it
START_MINUTES = 30
MODELS_FOLDER, OUT_FOLDER = "/srv/sdrun/models", "/srv/sdrun/out"
_RAM_BESIDE_MODEL_MIB = 2048  # what the engine takes beside the weights it holds in RAM (bench/results/fit_h100.json)
_UNKNOWN_MODEL_MIB = 14336
_OBJECTS = {"server": "sdrun-server", "job": "sdrun-job", "prompts": "sdrun-prompts"}


class Expression(Protocol):
    """One requirement on a node (sdrun.fleet.affinity)."""

    @property
    def key(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def values(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container on a single host is held to, as for `sdrun serve`: processes, bytes of stack, options of /tmp."""

    pids: int
    stack_bytes: int
    tmpfs: tuple[str, ...]


Terms = Sequence[Sequence[Expression]]


@dataclass(frozen=True, slots=True)
class Placed:
    """A class with the node affinity of its pods: one of `terms` must hold, `home` is preferred. `by_label`: the nodes it
    excludes are known by a label."""

    row: LockedClass
    terms: Terms
    home: Terms
    by_label: bool = False


def kubernetes(classes: Sequence[Placed], load: Workload, cluster: Cluster, labels: tuple[str, str]) -> dict[str, str]:
    """A kustomize base, an overlay for each class, and what holds for all of them. Of a list of prompts each class gets a part,
    by its number of nodes; a class that gets none has no overlay. `labels`: sdrun's own labels for a class
    and for nodes that no pod may use."""
    dealt = _dealt(classes, load)
    shared = _shared(load) | {"cluster": cluster, "tolerations": ("nvidia.com/gpu", *cluster.tolerate)}
    files = {
        "kustomization.yaml": _text("kustomization", shared | {"names": [placed.row.name for placed, _ in dealt]}),
        "network.yaml": _text("network", shared),
        "base/kustomization.yaml": _text("base-kustomization", shared),
        f"base/{load.kind}.yaml": _text(load.kind, shared),
    }
    if load.kind == "server":
        files["service.yaml"] = _text("service", shared)
    for placed, share in dealt:
        row = placed.row
        pinned = Reference.parse(row.image.image)
        own = shared | {
            "row": row,
            "terms": placed.terms,
            "home": placed.home,
            "share": share,
            "arguments": load.by_class.get(row.name),
            "repository": str(pinned.repository),
            "digest": pinned.digest,
            "jit": jit.environment() if row.code_path == "ptx-jit" else {},
        }
        folder = f"overlays/{row.name}"
        files[f"{folder}/kustomization.yaml"] = _text("overlay-kustomization", own)
        files[f"{folder}/placement.yaml"] = _text("placement", own)
        if load.kind == "prompts":
            files[f"{folder}/prompts.yaml"] = _text("prompt-list", own)
    labelled = [placed.row for placed, _ in dealt if placed.row.label_nodes]
    excluded = dict.fromkeys(name for placed, _ in dealt if placed.by_label for name in placed.row.exclude)
    if labelled or excluded:
        values = {"rows": labelled, "label": labels[0], "excluded": list(excluded), "exclude_label": labels[1]}
        files["label-nodes.sh"] = _render("kubernetes/label-nodes.sh.j2", values)
    return files | checksums(load)


def _dealt(classes: Sequence[Placed], load: Workload) -> list[tuple[Placed, range]]:
    parts = shares(len(load.prompts), [len(placed.row.nodes) for placed in classes])
    return [entry for entry in zip(classes, parts, strict=True) if entry[1] or load.kind != "prompts"]


def _shared(load: Workload) -> dict[str, Any]:
    return {
        "load": load,
        "component": load.kind,
        "object": _OBJECTS[load.kind],
        "port": PORT,
        "user": USER_ID,
        "start_minutes": START_MINUTES,
        "memory_mib": (load.model_mib or _UNKNOWN_MODEL_MIB) + _RAM_BESIDE_MODEL_MIB,
        "picker": _picker(load.program),
        "jit_folder": jit.FOLDER,
        "jit_mib": 2 * jit.MAX_BYTES >> 20,  # above what the driver keeps: a pod whose volume is full is thrown out
    }


def _picker(program: str) -> tuple[str, ...]:
    """The command that reads this pod's prompt, and gives it to the engine behind the arguments that all pods share."""
    script = (
        'n=$((FIRST_PROMPT + JOB_COMPLETION_INDEX)) && text=$(/tools/busybox cat "/prompts/$n") && '
        f'exec {program} "$@" --output "/out/$n.png" --prompt "$text"'
    )
    return ("/tools/busybox", "sh", "-c", script, "sdrun")


def checksums(load: Workload) -> dict[str, str]:
    """What sha256sum --check reads, for the files of the model on their volume; nothing where no hash is known."""
    lines = [f"{file.sha256}  {load.folder}/{file.path}\n" for file in load.files if file.sha256]
    return {"models.sha256": "".join(lines)} if lines else {}


def compose(row: LockedClass, load: Workload, limits: Limits) -> str:
    """The compose file for a host of the class."""
    return _render("compose/compose.yaml.j2", _host(row, load, limits))


def quadlet(row: LockedClass, load: Workload, limits: Limits) -> str:
    """The unit for Podman's systemd generator, for a host of the class."""
    return _render("quadlet/sdrun.container.j2", _host(row, load, limits))


def _host(row: LockedClass, load: Workload, limits: Limits) -> dict[str, Any]:
    return _shared(load) | {
        "row": row,
        "arguments": load.by_class.get(row.name, load.arguments),
        "variables": {**load.environment, **(jit.environment() if row.code_path == "ptx-jit" else {})},
        "unit": _OBJECTS[load.kind],
        "digest": Reference.parse(row.image.image).digest,
        "pids_limit": limits.pids,
        "stack_bytes": limits.stack_bytes,
        "tmpfs": limits.tmpfs,
        "models_folder": MODELS_FOLDER,
        "out_folder": OUT_FOLDER,
    }


def _text(name: str, values: Mapping[str, Any]) -> str:
    return _render(f"kubernetes/{name}.yaml.j2", values)


def _render(template: str, values: Mapping[str, Any]) -> str:
    return environment().get_template(template).render(values)


def folders(files: Mapping[str, str]) -> Iterator[str]:
    """The folders that `files` need, outermost first."""
    seen: set[str] = set()
    for name in files:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in seen:
                seen.add(folder)
                yield folder
