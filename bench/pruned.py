"""Over-pruned libraries are found: NVIDIA's own nvprune on NVIDIA's own static cuBLAS, and what the comparison says of the
result.

    python bench/pruned.py IMAGE [--root /usr] [--stores LIBRARY...] [--record]

IMAGE is a container image with a toolkit (nvprune, static cuBLAS), as a build stage of sdrun is. Each case prunes both
libraries for some archs and asks for some capabilities whether all code that such a GPU could load is still there; `expected`
is the right answer. Last, both are linked into one shared object, whole and pruned, as images have it
(templates/link-cublas.sh), and compared again. --stores: libraries whose code outside fatbin sections is listed. TMPDIR needs 3
GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import record

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.core.capability import ComputeCapability
from sdrun.fatbin.carried import read_code
from sdrun.fatbin.pruned import compare, read_holding
from sdrun.fatbin.report import toolkit_of
from sdrun.fatbin.source import FileSource
from sdrun.resources import templates_dir

# archs that stay, capability asked for, whether that is enough
CASES = (
    (("90",), "9.0", True),
    (("89",), "8.9", False),
    (("80", "86", "89"), "8.9", True),
    (("80", "86", "89"), "8.6", True),
    (("80",), "8.0", True),
    (("80",), "8.6", False),
    (("86",), "9.0", False),
    (("75",), "7.5", False),
    (("70", "75"), "7.5", True),
)
LIBRARIES = ("cublas", "cublasLt")


class Toolkit:
    """A toolkit in a container; files come and go through `folder`."""

    def __init__(self, image: str, root: str, folder: Path) -> None:
        self.image, self.root, self.folder = image, root, folder

    def run(self, script: str) -> str:
        """Output of a shell script, with the folder at /o; as root, or it could not write there."""
        mounts = ["-v", f"{self.folder}:/o", "-v", f"{templates_dir()}:/t:ro"]
        argv = ["docker", "run", "--rm", "--network=none", *mounts, self.image, "sh", "-euc", script]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def fetch(self) -> None:
        """The static libraries, whole."""
        for name in LIBRARIES:
            self.run(
                f"for d in {self.root}/lib64 {self.root}/lib/*-linux-gnu; do"
                f" [ ! -e $d/lib{name}_static.a ] || cp $d/lib{name}_static.a /o/; done"
            )

    def prune(self, name: str, archs: tuple[str, ...]) -> Path:
        """nvprune on one of them."""
        options = " ".join(f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in archs)
        self.run(f"nvprune {options} /o/lib{name}_static.a -o /o/pruned.a")
        return self.folder / "pruned.a"

    def link(self, output: str, archs: tuple[str, ...]) -> Path:
        """One shared object of what the engine calls."""
        engine = max(engines().values(), key=lambda row: row.epoch)
        entries = " ".join(engine.cublas_entry_points)
        keep = f"--keep {' '.join(archs)}" if archs else ""
        compiler = "CXX=$(ls /usr/bin/g++* | tail -1)"
        words = f"--libraries {' '.join(LIBRARIES)} --entry-points {entries} {keep}"
        self.run(f"{compiler} sh /t/link-cublas.sh {self.root} /o/{output} {words}")
        return self.folder / output


def compared(before: Path, after: Path, capability: str) -> dict[str, object]:
    """What became of the code, and what finding out took."""
    facts = load_cuda_facts()
    begin = time.process_time()
    with before.open("rb") as whole, after.open("rb") as pruned:
        source = FileSource(whole.fileno())
        toolkit = toolkit_of(read_code(source, str(before)), facts)
        was, now = read_holding(source), read_holding(FileSource(pruned.fileno()))
        found = compare(was, now, ComputeCapability.parse(capability), facts, toolkit)
    return {
        "bytes": [before.stat().st_size, after.stat().st_size],
        "cpu_seconds": round(time.process_time() - begin, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **found.to_json(),
    }


def rows(toolkit: Toolkit) -> list[dict[str, object]]:
    """A row for each library and case."""
    found: list[dict[str, object]] = []
    for name in LIBRARIES:
        for archs in dict.fromkeys(case[0] for case in CASES):
            pruned = toolkit.prune(name, archs)
            for _, capability, expected in (case for case in CASES if case[0] == archs):
                row = compared(toolkit.folder / f"lib{name}_static.a", pruned, capability)
                found.append({"file": f"lib{name}_static.a", "kept_archs": list(archs), "expected": expected, **row})
                print(name, archs, capability, "complete" if row["complete"] else f"missing {row['missing']}")
            pruned.unlink()
    return found


def linked(toolkit: Toolkit) -> list[dict[str, object]]:
    """The shared object of images for 8.9, right and over-pruned."""
    whole = toolkit.link("whole.so", ())
    found: list[dict[str, object]] = []
    for archs, expected in ((("80", "86", "89"), True), (("89",), False)):
        pruned = toolkit.link("pruned.so", archs)
        row = compared(whole, pruned, "8.9")
        found.append({"file": "linked", "kept_archs": list(archs), "expected": expected, **row})
        print("linked", archs, "complete" if row["complete"] else f"missing {row['missing']}")
    return found


def stores(files: list[Path]) -> dict[str, object]:
    """Code outside fatbin sections, by file, section and arch."""
    found: dict[str, object] = {}
    for file in files:
        with file.open("rb") as opened:
            code = read_code(FileSource(opened.fileno()), file.name)
        sections: dict[str, dict[str, int]] = {}
        for (section, arch), count in sorted(code.stored.items()):
            sections.setdefault(section, {})[str(arch)] = count
        found[f"{file.parent.name}/{file.name}"] = sections
    return found


def main() -> None:
    """All cases; ends with exit code 1 where one is not as expected."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("image")
    options.add_argument("--root", default="/usr", help="where the toolkit lies in the image")
    options.add_argument("--stores", nargs="*", type=Path, default=[])
    options.add_argument("--record", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sdrun-bench-") as name:
        toolkit = Toolkit(chosen.image, chosen.root, Path(name))
        version = toolkit.run("nvprune --version | tail -1").strip()
        toolkit.fetch()
        cases = rows(toolkit) + linked(toolkit)
        toolkit.run(f"chown -R {os.getuid()} /o")
    wrong = [row for row in cases if row["complete"] != row["expected"]]
    figures = {"nvprune": version, "cases": cases, "as_expected": not wrong, "stores": stores(chosen.stores)}
    print(record.write("pruned", figures) if chosen.record else json.dumps(figures, indent=2))
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
