"""What makes the engine faster on the chosen GPU, where that was measured: images/settings.yaml put to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdrun.core.capability import ComputeCapability
from sdrun.core.fileset import FileSet
from sdrun.core.model import ModelFiles
from sdrun.core.plan import CodePath
from sdrun.launch.request import Request

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Tuned:
    """`options` for the engine and a line for people about each setting they belong to."""

    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def tuned(
    request: Request, model: ModelFiles, files: FileSet, capabilities: Collection[ComputeCapability], code_path: CodePath
) -> Tuned:
    """What to add for GPUs of these capabilities. Nothing where the request forbids it, where the model's family is not known,
    and for other code than the machine code of those GPUs, with which nothing was measured."""
    if not request.tuned or files.family is None or code_path != "sass-exact" or not capabilities:
        return Tuned()
    from sdrun.catalog.settings import settings
    from sdrun.core.setting import settings_for

    given = (*model.engine_args, *request.engine_args)
    chosen = settings_for(settings(), capabilities, files.family.name, given)
    first = min(capabilities)
    return Tuned(
        tuple(option for setting in chosen for option in setting.options),
        tuple(f"{setting.reason(first)} (--no-tuned leaves it out)" for setting in chosen),
    )
