"""Which of the targets a selector found are built here, and with which toolchain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdrun.build.toolkit import LocalToolkit, local_toolkit
from sdrun.catalog.targets import Targets
from sdrun.core.target import Target
from sdrun.errors import UsageProblem


def on_platform(rows: Sequence[Target], platform: str) -> list[Target]:
    """The rows for the runtime's own platform. Raises UsageProblem (`other-platform`) where none is."""
    found = [row for row in rows if row.platform == platform]
    if not found:
        others = ", ".join(sorted({row.platform for row in rows}))
        raise UsageProblem(
            f"{', '.join(sorted({str(row.id) for row in rows}))}: built on {others} only, and this runtime is {platform}",
            f"Build it on a machine of {others}, or in CI (sdrun matrix), "
            f"or give images/targets.yaml a row of it for {platform}.",
            id="other-platform",
        )
    return found


def with_toolchain(rows: Sequence[Target], catalogue: Targets, kind: str | None) -> list[Target]:
    """The rows built with the toolchain `kind`, rows without a toolkit as they are. Raises UsageProblem (`unknown-toolchain`)
    where a row's toolkit does not come from there."""
    if kind is None:
        return list(rows)
    chosen = []
    for row in rows:
        toolchain = row.toolkit and catalogue.toolchains.get((kind, row.toolkit))
        if row.toolkit is not None and toolchain is None:
            known = sorted(name for name, toolkit in catalogue.toolchains if toolkit == row.toolkit)
            raise UsageProblem(
                f"CUDA {row.toolkit} of {row.id} does not come from {kind[:40]!r}",
                f"Choose one of {', '.join(known)}, or add a row to images/toolchains.yaml.",
                id="unknown-toolchain",
            )
        if row.pruned and toolchain and not toolchain.static_libraries:
            raise UsageProblem(
                f"{row.id} is pruned, and {kind} has no static libraries of CUDA {row.toolkit} to prune",
                f"Leave --toolchain out, or choose another of {', '.join(row.toolchains)}.",
                id="cannot-prune",
            )
        chosen.append(row.built_with(toolchain) if toolchain else row)
    return chosen


def with_local_toolkit(rows: Sequence[Target], catalogue: Targets, folder: Path) -> tuple[list[Target], LocalToolkit]:
    """The rows built with the toolkit in `folder`. Raises UsageProblem (`bad-toolkit`) where it is of another release."""
    toolkit = local_toolkit(folder)
    for row in rows:
        if row.toolkit != toolkit.version:
            raise UsageProblem(
                f"{folder} is CUDA {toolkit.version}, and {row.id} is built with {row.toolkit or 'no CUDA'}",
                f"Select targets of {toolkit.version.short}-*, or name another toolkit.",
                id="bad-toolkit",
            )
    return with_toolchain(rows, catalogue, "local"), toolkit
