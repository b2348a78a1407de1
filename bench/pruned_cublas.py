"""What NVIDIA's nvprune leaves of a static cuBLAS, what it weighs, and whether a GPU still finds every kernel.

    python bench/pruned_cublas.py --toolkit /usr/local/cuda --engine SD_CLI [--archs 90 --archs 90,90a --archs all] [--record]

For each list of archs templates/link-cublas.sh prunes the static libraries to it (`all`: not at all) and links one shared
object with the entry points that the engine calls (images/engines.yaml), as for an image. Here it takes the place of NVIDIA's
own library for SD_CLI, which is linked dynamically to the same major release of CUDA and then draws with the model shapes in
four ways; exit codes and what it said are recorded. Needs a GPU, nvprune, cuobjdump, g++ and the toolkit's static libraries,
and no Docker.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import record  # noqa: E402

from sdrun.catalog.engines import engines  # noqa: E402
from sdrun.core.engine import Engine  # noqa: E402

WEIGHTS = ROOT / "models" / "shapes" / "weights"
DRAW = (
    *("--diffusion-model", str(WEIGHTS / "shapes-diffusion.gguf"), "--llm", str(WEIGHTS / "shapes-llm.gguf")),
    *("--tae", str(WEIGHTS / "shapes-tae.gguf"), "-p", "a red circle left of a blue square", "-W", "256", "-H", "256"),
    *("--steps", "8", "--cfg-scale", "1", "--seed", "42", "--sampling-method", "euler"),
)
WAYS = {"q4_0": (), "f16": ("--type", "f16"), "f32": ("--type", "f32"), "f16 flash": ("--type", "f16", "--diffusion-fa")}
SECTIONS = (".text", ".rodata", ".data", ".ldata", ".nv_fatbin", ".cask_resource")


def run(*argv: str | Path) -> str:
    """Its standard output; a failure ends the measurement."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{argv[0]} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def archs_of(library: Path) -> dict[str, int]:
    """Number of cubins by arch, as cuobjdump lists them."""
    return dict(sorted(collections.Counter(re.findall(r"sm_(\w+)\.cubin", run("cuobjdump", "--list-elf", library))).items()))


def link(toolkit: Path, archs: str, made: Path, engine: Engine) -> dict[str, object]:
    """The library at `made`, linked as images have it, and what is in it."""
    kept = () if archs == "all" else ("--keep", *archs.split(","))
    words = ("--libraries", *engine.cublas_libraries, "--entry-points", *engine.cublas_entry_points, *kept)
    run("sh", ROOT / "templates" / "link-cublas.sh", toolkit, made, *words)
    sizes = dict(re.findall(r"(\.\w+)\s+PROGBITS\s+\w+\s+\w+\s+(\w+)", run("readelf", "-SW", made)))
    return {
        "linked": archs_of(made),
        "bytes": made.stat().st_size,
        "section_bytes": {name: int(sizes[name], 16) for name in SECTIONS if name in sizes},
        "compressed_bytes": compressed(made),
    }


def compressed(file: Path) -> dict[str, int]:
    """By zstd at some levels and with the logarithm of its window; nothing where the module zstandard is missing."""
    try:
        import zstandard
    except ImportError:
        return {}
    data, sizes = file.read_bytes(), {}
    for level, window in ((10, 27), (12, 27), (19, 23)):  # 19 is slow; with 8 MiB it goes on many processors at a time
        how = zstandard.ZstdCompressionParameters.from_level(level, window_log=window, threads=os.cpu_count() or 1)
        sizes[f"zstd -{level}, window {window}"] = len(zstandard.ZstdCompressor(compression_params=how).compress(data))
    return sizes


def draw(engine: Path, libraries: Path) -> dict[str, object]:
    """The engine's exit codes with the library of this folder before all others, the driver's compiler switched off."""
    environ = {**os.environ, "CUDA_LIBS": str(libraries), "CUDA_DISABLE_PTX_JIT": "1"}
    environ["LD_LIBRARY_PATH"] = ":".join(filter(None, (str(libraries), os.environ.get("LD_LIBRARY_PATH"))))
    found: dict[str, object] = {}
    for way, words in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            argv = [str(engine), *DRAW, *words, "-o", f"{folder}/x.png"]
            done = subprocess.run(argv, env=environ, capture_output=True, check=False)
            said = re.findall(r"CUDA error: .*", (done.stdout + done.stderr).decode(errors="replace"))
            found[way] = {"exit": done.returncode, **({"said": said[0]} if said else {})}
    return found


def main() -> None:
    """See the module's own words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toolkit", type=Path, default=Path("/usr/local/cuda"))
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--archs", action="append")
    parser.add_argument("--device", default="")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.environ["PATH"] += f":{options.toolkit / 'bin'}"
    (engine, *_) = engines().values()
    release = re.search(r"release (\d+)\.(\d+)", run("nvcc", "--version"))
    if release is None:
        sys.exit("nvcc does not say its release")
    figures: dict[str, object] = {"toolkit": ".".join(release.groups()), "engine": options.engine.name}
    for archs in options.archs or ("90", "90,90a", "all"):
        with tempfile.TemporaryDirectory() as name:
            found = link(options.toolkit, archs, Path(name) / f"libcublas.so.{release[1]}", engine)
            figures[archs] = {**found, "runs": draw(options.engine.resolve(), Path(name))}
        print(archs, figures[archs], flush=True)
    if options.record:
        record.write(f"pruned_cublas_{release[1]}", figures, options.device or None)


if __name__ == "__main__":
    main()
