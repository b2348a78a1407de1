"""The part of a build's proof that needs the build: the pruned library in the image against the same link of the whole ones,
which is a stage of the same Dockerfile."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sdrun.build.client import BuildClient
from sdrun.build.pruning import check_pruned
from sdrun.build.rootfs import open_rootfs
from sdrun.core.facts import CudaFacts
from sdrun.core.target import Target
from sdrun.errors import EngineFailed, VerificationFailed

STAGE = "unpruned"


def check_against_whole(
    archive: Path, context: Path, client: BuildClient, arguments: Mapping[str, str], target: Target, facts: CudaFacts
) -> None:
    """Returns where every GPU that the target serves finds in the libraries of the saved image `archive` all the code that it
    would find in the whole ones. Raises VerificationFailed (`image-differs`) saying what is missing, and EngineFailed
    (`build-failed`) where the stage of `context` cannot be built."""
    argv = client.stage_argv(context, STAGE, arguments)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=messages, env=client.environment())
        assert process.stdout is not None  # it was asked for
        try:
            with open_rootfs(archive) as rootfs:
                faults = check_pruned(rootfs, process.stdout, target, facts)
            while process.stdout.read(1 << 20):
                pass  # what stands behind the archive's end
            code = process.wait()
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
                process.wait()
        if code != 0:
            messages.seek(0)
            raise EngineFailed(
                f"the whole libraries to hold the pruned ones against could not be linked (exit code {code})",
                "Read the errors above; building again goes on where it stopped.",
                id="build-failed",
                detail=messages.read().decode("utf-8", "replace")[-2000:],
            )
    if faults:
        raise VerificationFailed(
            f"the pruned libraries of {target.id} lack code that they need, or have other code than the whole ones",
            "Keep the archs that are named (kept_archs in sdrun/render/dockerfile.py), or publish the target unpruned.",
            id="image-differs",
            detail="\n".join(f"  - {fault}" for fault in faults),
        )
