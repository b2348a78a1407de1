"""`sdrun verify`: the proof of a build, on an image that is already here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.exercising import exercise_for

if TYPE_CHECKING:
    from sdrun.build.proof import Proof
    from sdrun.core.target import Target


def command(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A local image that sdrun built: tag, digest or id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.verify/v1.")] = False,
) -> None:
    """Read an image back and compare it with what its labels say; exit 7 where they differ."""
    from sdrun.build.verifying import verify
    from sdrun.runtime import connect

    console: Console = ctx.obj
    target, proof = verify(image, connect(console.settings().runtime), exercise_for(console))
    if as_json:
        console.document(to_json(image, target, proof))
    else:
        console.result(f"{image}: is what {target.id} promises\n{describe(target, proof)}")


def to_json(image: str, target: Target, proof: Proof) -> dict[str, object]:
    """Schema sdrun.verify/v1."""
    return {
        "schema": "sdrun.verify/v1",
        "image": image,
        "target": str(target.id),
        "sass": [str(arch) for arch in target.sass],
        "ptx": [str(arch) for arch in target.ptx],
        "fatbin_compression": target.fatbin_compression,
        "min_driver": str(target.min_driver) if target.min_driver else None,
        "files": list(proof.code),
        "libraries": list(proof.libraries),
        "size_bytes": proof.transfer_bytes,
        "unpacked_bytes": proof.unpacked_bytes,
        "engine_version": proof.version,
        "selftest": proof.selftest,
    }


def describe(target: Target, proof: Proof) -> str:
    """What was read, a line each."""
    code = [f"SASS {', '.join(map(str, target.sass))}"] if target.sass else []
    code += [f"PTX {', '.join(map(str, target.ptx))}"] if target.ptx else []
    sizes = f"about {proof.transfer_bytes / 1e6:.0f} MB packed with gzip, {proof.unpacked_bytes / 1e6:.1f} MB unpacked"
    held = f"{' and '.join(code)}, {target.fatbin_compression}" if code else "no GPU code"
    return (
        f"  code        {held}\n  min driver  {target.min_driver or '-'}\n  size        {sizes}\n  selftest    {proof.selftest}"
    )
