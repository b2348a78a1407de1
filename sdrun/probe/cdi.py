"""CDI specs: the device names a container runtime may hand over, and whether they still fit the running driver.

The specification reads /etc/cdi and then /var/run/cdi, `.json` and `.yaml` files, the later folder winning.
Source: CNCF Container Device Interface, SPEC.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.decode import Fields, Malformed
from sdrun.core.version import DriverVersion
from sdrun.probe.libraries import version_of_file

FOLDERS = ("etc/cdi", "var/run/cdi")
REMEDY = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
MAX_BYTES = 16 << 20
_NVIDIA_KIND = re.compile(r"""["']?kind["']?\s*:\s*["']?(?:[a-z0-9-]+\.)*nvidia\.com/""")
_LIBRARY = re.compile(r"/((?:libcuda|libnvidia-ml)\.so\.[0-9]{3,5}(?:\.[0-9]{1,5}){1,2})(?![0-9A-Za-z_.])")


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """One spec file: fully qualified device names (`nvidia.com/gpu=0`), and the driver version in the paths of the libraries
    that it mounts (None where no path has one, as under WSL2)."""

    path: Path
    kind: str
    devices: tuple[str, ...]
    driver_version: DriverVersion | None


def read_specs(root: Path = Path("/")) -> tuple[tuple[CdiSpec, ...], tuple[str, ...]]:
    """Every readable spec under `root`, and a note for each file that is none. A file is read up to 16 MiB."""
    specs: list[CdiSpec] = []
    notes: list[str] = []
    for path in spec_files(root):
        try:
            specs.append(parse_spec(_read(path), path))
        except OSError as fault:
            notes.append(f"The CDI spec {path} cannot be read ({fault.strerror}).")
        except Malformed as fault:
            notes.append(f"The CDI spec {path} is not usable ({fault}): write it anew with `{REMEDY}`.")
    return tuple(specs), tuple(notes)


def spec_files(root: Path) -> list[Path]:
    """The spec files under `root`, by folder, then name."""
    found: list[Path] = []
    for folder in FOLDERS:
        try:
            found += sorted(path for path in (root / folder).iterdir() if path.suffix in (".json", ".yaml"))
        except OSError:
            continue
    return found


def parse_spec(text: str, path: Path) -> CdiSpec:
    """A spec in JSON or, by the suffix of `path`, YAML; shortened:

        cdiVersion: 0.5.0
        kind: nvidia.com/gpu
        devices:
        - name: "0"
        - name: all
        containerEdits:
          mounts:
          - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04

    Raises Malformed."""
    top = Fields(_load(text, path))
    top.get("cdiVersion", str)
    kind = top.get("kind", str)
    names = [Fields(value, key).get("name", str) for key, value in top.items("devices")]
    devices = tuple(f"{kind}={name}" for name in names)
    return CdiSpec(path, kind, devices, max(library_versions(text), default=None))


def _load(text: str, path: Path) -> object:
    try:
        if path.suffix == ".json":
            return json.loads(text)
        from sdrun.catalog.plainyaml import load_plain  # PyYAML costs 15 ms, and most runs need no spec

        return load_plain(text)
    except RecursionError:
        raise Malformed("(document)", "is nested too deeply") from None
    except ValueError as fault:
        raise Malformed("(document)", str(fault)) from None


def library_versions(text: str) -> set[DriverVersion]:
    """The driver versions in the paths of libcuda and libnvidia-ml in a spec's text, such as
    `/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04`."""
    return {found for name in _LIBRARY.findall(text) if (found := version_of_file(name)) is not None}


def device_names(specs: Iterable[CdiSpec]) -> tuple[str, ...]:
    """All devices of the specs, each once, in order: what a runtime that reads the specs itself (Podman) can hand over."""
    return tuple(dict.fromkeys(device for spec in specs for device in spec.devices))


def stale_notes(root: Path, running: DriverVersion | None) -> tuple[str, ...]:
    """A note for each of NVIDIA's specs that names libraries of another driver than the running one. Looks at the text alone,
    for `detect` is to be quick: a spec that is no YAML is found by `read_specs`."""
    notes = []
    for path in spec_files(root) if running is not None else ():
        try:
            text = _read(path)
        except OSError:
            continue  # read_specs tells
        versions = library_versions(text) if _NVIDIA_KIND.search(text) else set()
        if versions and running not in versions:
            named = ", ".join(str(version) for version in sorted(versions))
            notes.append(
                f"The CDI spec {path} was made for driver {named}, {running} is running: write it anew with `{REMEDY}`."
            )
    return tuple(notes)


def _read(path: Path) -> str:
    """The text, of which a larger file than any runtime writes is cut at 16 MiB. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode("utf-8", "replace")
