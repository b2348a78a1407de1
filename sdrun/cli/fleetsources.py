"""What `sdrun fleet` reads: nodes, published images, a lock, a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.finding import Checked, Finding
    from sdrun.core.index import Index
    from sdrun.core.lock import Lock
    from sdrun.core.node import Node
    from sdrun.launch.sources import Sources


def read(nodes: str, assumed: str | None) -> tuple[Node, ...]:
    """The nodes in the file; raises UsageProblem for a driver version that is none."""
    from sdrun.core.version import DriverVersion
    from sdrun.errors import UsageProblem
    from sdrun.fleet.reading import read_nodes

    try:
        driver = None if assumed is None else DriverVersion.parse(assumed)
    except ValueError as fault:
        raise UsageProblem(f"--assume-driver {fault}", "Give the version that nvidia-smi shows on such a node.") from None
    return read_nodes(nodes, driver)


def sources(console: Console, registry: str | None) -> Sources:
    """The registry and its mirrors: the one named, else those of the settings."""
    from sdrun.launch.sources import sources_at

    return sources_at(console.settings(), registry)


def published(console: Console, index: str | None, registry: str | None) -> Index:
    """The images that may be pinned: of the file, else of the registry, else of the settings' file. Raises UsageProblem where
    nothing names any."""
    from sdrun.catalog.indexfile import read_index
    from sdrun.errors import UsageProblem

    named = index or (console.settings().index if registry is None else None)
    if named is not None:
        return read_index(named)
    where = sources(console, registry)
    if not where.references:
        raise UsageProblem("nothing names the published images", "Say --index FILE, or --registry REF.", id="bad-option")
    return where.index(console.note)


def locked(path: Path) -> Lock:
    """The lock in the file, confirmed."""
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.catalog.lockfile import read_lock
    from sdrun.fleet.checking import confirm

    lock = read_lock(path)
    confirm(lock, load_cuda_facts())
    return lock


def check_signatures(console: Console, registry: str | None, made: Lock) -> None:
    """Where the settings demand signatures, an image without one is not pinned, wherever the index came from."""
    from sdrun.launch.sources import trusted

    where = sources(console, registry)
    for image in dict.fromkeys(row.image.image for row in made.classes):
        trusted(where, image, console.note)


def held(path: Path) -> tuple[Path, str] | None:
    """The lock file that is there, None where there is none."""
    from sdrun.errors import BadConfiguration

    try:
        return path, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "is not UTF-8 text"
        raise BadConfiguration(f"{path}: {why}", "Name another file with --output.", id="bad-lock") from None


class Registry:
    """What is published, as far as it was to be asked for; a registry that does not answer is a finding like others."""

    def __init__(self, console: Console, file: str | None, registry: str | None, offline: bool) -> None:
        from sdrun.errors import VerificationFailed

        self.index: Index | None = None
        self._fault: Finding | None = None
        self.asked = not offline and bool(sources(console, registry).references)
        if not offline and not self.asked:
            console.note("note: no registry is named (--registry REF), so none was asked whether it still has the images")
        if file is None and not self.asked:
            return
        try:
            self.index = published(console, file, registry)
        except VerificationFailed as fault:
            from sdrun.core.finding import Finding

            self._fault = Finding(fault.id, fault.exit_code, fault.message, fault.remedy)

    def holds(self, image: str) -> bool:
        """Whether the registry that the reference names still has its digest."""
        from sdrun.registry.client import open_registry
        from sdrun.registry.published import QUICK

        client, reference = open_registry(image, QUICK)
        try:
            return client.digest_of(reference.digest or "") is not None
        finally:
            client.close()

    def added_to(self, found: Checked) -> Checked:
        """`found`, and that the index could not be had, where that is so and nothing says it yet."""
        from sdrun.core.finding import Checked

        if self._fault is None or self._fault.message in {finding.message for finding in found.findings}:
            return found
        return Checked((self._fault, *found.findings))
