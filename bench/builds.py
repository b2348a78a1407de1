"""What built images hold and weigh, and what building them took.

    python bench/builds.py TARGET[+pruned]... [--before NINJA_LOG]   [--record]

TARGET names images of the local container runtime (`sdrun build` made them, of TARGET+pruned `sdrun build TARGET --pruned`).
The bytes to pull are those of the layers packed as `sdrun publish` does it, by either compression; a layer's digest tells
which images share it. Machine code, PTX and sizes are read back from each; processor time, cache hits and the time of each
file come from the logs of its builds. CPU-minutes are user and system time of the whole compile step, as the shell's `times`
tells it; waiting is not in them, so other work hardly shows. Seconds of single files are by the clock, in which it does. The
first of a target's builds with misses is the cold one, the last with hardly any the warm one.

`--before` is ninja's log of a build that left nothing out (`sdrun build --full`): its groups and slowest files are put beside
those of the first TARGET's.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import record

from sdrun.build.local import pruned
from sdrun.build.profile import Profile, Unit, profile_of, read_profile
from sdrun.build.proof import Proof
from sdrun.build.readback import save_image
from sdrun.build.rootfs import open_rootfs
from sdrun.build.verifying import verify
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.labels import LEFT_OUT
from sdrun.core.target import Target
from sdrun.registry.archive import Compression, pack
from sdrun.registry.upload import LocalBlob
from sdrun.resources import cache_root
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime

# Parts of the engine by the names of its files; the first that fits.
GROUPS = (
    ("quantised matrix products (mmq)", "/mmq-instance"),
    ("attention on tensor cores (fattn-mma)", "/fattn-mma"),
    ("attention in tiles (fattn-tile)", "/fattn-tile"),
    ("attention of one column (fattn-vec)", "/fattn-vec"),
    ("narrow matrix products (mmf)", "/mmf-instance"),
    ("the rest of ggml-cuda", "ggml-cuda"),
    ("ggml for the CPU", "ggml/"),
    ("stable-diffusion.cpp", ""),
)
LIBRARIES = ("libcublas", "libcudart", "libsdrun-cublas")
# Layers that were packed already, by what they hold: several images share them.
WEIGHED: dict[Compression, dict[str, LocalBlob]] = {one: {} for one in get_args(Compression)}
PARTS = {3: ("base", "toolkit", "engine"), 2: ("base", "engine")}  # what the layers are, as templates/Dockerfile.j2 stacks them


def grouped(units: Iterable[Unit]) -> dict[str, dict[str, float]]:
    """Files and seconds of each group."""
    groups: dict[str, dict[str, float]] = {name: {"files": 0, "seconds": 0.0} for name, _ in GROUPS}
    for unit in units:
        name = next(name for name, part in GROUPS if part in f"/{unit.name}")
        groups[name]["files"] += 1
        groups[name]["seconds"] = round(groups[name]["seconds"] + unit.seconds, 1)
    return groups


def profile_figures(profile: Profile) -> dict[str, object]:
    """Groups and the 20 slowest files."""
    slowest = [{"file": unit.name, "seconds": round(unit.seconds, 1)} for unit in profile.units[:20]]
    return {"files_seconds": round(profile.unit_seconds, 1), "groups": grouped(profile.units), "slowest": slowest}


def ninja_profile(log: Path) -> Profile:
    """A profile of ninja's own log; it knows of no processor time."""
    lines = [f"sdrun unit: {line}" for line in log.read_text(encoding="utf-8").splitlines()]
    found = read_profile([*lines, "sdrun times: 0m0.0s 0m0.0s"])
    if found is None:
        raise SystemExit(f"{log} is no log of ninja")
    return found


def builds(tag: str) -> dict[str, Profile]:
    """The cold and the warm build of an image among the logs that are kept."""
    profiles = [profile_of(log) for log in sorted((cache_root() / "logs").glob(f"{tag}-2*.log"))]
    compiled = [one for one in profiles if one is not None]
    found = {}
    for one in compiled:
        share = one.hits / max(1, one.hits + one.misses)
        if share > 0.95:
            found["warm"] = one
        else:
            found.setdefault("cold", one)
    return found


def sizes(reference: str, runtime: ContainerRuntime) -> dict[str, object]:
    """Unpacked bytes by what the files are; the layers, and what pulling them moves."""
    image = runtime.image(reference)
    if image is None:
        raise SystemExit(f"there is no image {reference}")
    found: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        save_image(image, archive, runtime)
        pulls = layers(archive, Path(folder))
        with open_rootfs(archive) as rootfs:
            for path, member in rootfs.files():
                name = path.rpartition("/")[2]
                if path.startswith("usr/libexec/sdrun/"):
                    kind = "engine_bytes"
                else:
                    kind = "cuda_libraries_bytes" if name.startswith(LIBRARIES) else "other_bytes"
                found[kind] += member.size
    return {**found, **pulls}


def layers(archive: Path, folder: Path) -> dict[str, object]:
    """What each layer of a saved image weighs: its tar file, and packed as it is published."""
    packed = {one: pack(archive, folder, one, WEIGHED[one].get) for one in get_args(Compression)}
    for one, image in packed.items():
        WEIGHED[one].update(zip(image.diff_ids, image.layers, strict=True))
    with tarfile.open(archive) as tar:
        (row,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        plain = [(tar.extractfile(name) or io.BytesIO()).seek(0, io.SEEK_END) for name in row["Layers"]]
    found = [
        {"part": part, "diff_id": diff_id, "tar_bytes": size}
        | {f"{name}_bytes": one.layers[i].size for name, one in packed.items()}
        for i, (part, diff_id, size) in enumerate(zip(PARTS[len(plain)], packed["gzip"].diff_ids, plain, strict=True))
    ]
    return {"layers": found} | {f"pull_{name}_bytes": one.pull_bytes for name, one in packed.items()}


def row_of(name: str) -> Target:
    """The target called `cu124-sm90`, or `cu118-sm61+pruned`."""
    (row,) = (one for one in targets().rows if one.name == name.removesuffix("+pruned"))
    return pruned(row, engines()[row.engine])[0] if name.endswith("+pruned") else row


def figures(name: str, runtime: ContainerRuntime) -> dict[str, object]:
    """Everything about one image."""
    row = row_of(name)
    reference = f"sdrun:{row.tag}"
    target, proof = verify(reference, runtime)
    found = builds(row.tag)
    left_out = left_out_of(reference, runtime)
    return {
        "target": name,
        "toolkit": str(target.toolkit or ""),
        "toolchain": row.toolchain.kind if row.toolchain else None,
        "sass": [str(arch) for arch in target.sass],
        "ptx": [str(arch) for arch in target.ptx],
        "programs": code_of(proof),
        "min_driver": str(target.min_driver or ""),
        "pruned": target.pruned,
        "pull_bytes": proof.transfer_bytes,
        "unpacked_bytes": proof.unpacked_bytes,
        **sizes(reference, runtime),
        "left_out": left_out,
        **compiles_before(name),
        **{
            kind: {"cpu_minutes": round(one.cpu_seconds / 60, 2), "hits": one.hits, "misses": one.misses, "left_out": left_out}
            for kind, one in found.items()
        },
    }


def compiles_before(name: str) -> dict[str, object]:
    """What an earlier record says of a target's compiles, with what was left out then: logs are not kept for long."""
    rows: list[dict[str, Any]] = earlier().get("images", [])
    before: dict[str, Any] = next((row for row in rows if row["target"] == name), {})
    return {kind: {"left_out": before["left_out"], **before[kind]} for kind in ("cold", "warm") if kind in before}


def earlier() -> dict[str, Any]:
    """The figures that were recorded last."""
    file = record.out_folder() / "builds.json"
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else {}
    return figures


def left_out_of(reference: str, runtime: ContainerRuntime) -> list[str]:
    """The parts that the image says it does without."""
    image = runtime.image(reference)
    return image.labels[LEFT_OUT].split(",") if image is not None and image.labels.get(LEFT_OUT) else []


def code_of(proof: Proof) -> dict[str, object]:
    """Machine code and PTX of each of the engine's programs."""
    return {str(file["path"]): [file["sass"], file["ptx"]] for file in proof.code if "libexec" in str(file["path"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="+")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    runtime = connect(None)
    result: dict[str, object] = {"images": [figures(name, runtime) for name in options.target]}
    if "profile" in earlier():
        result["profile"] = earlier()["profile"]
    if options.before is not None:
        cold = builds(row_of(options.target[0]).tag)["cold"]
        result["profile"] = {"before": profile_figures(ninja_profile(options.before)), "after": profile_figures(cold)}
    if options.record:
        record.write("builds", result)
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
