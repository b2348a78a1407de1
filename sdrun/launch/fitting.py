"""The model's files put to the test before anything is started: do they belong together?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from sdrun.core.fileset import FileSet
from sdrun.core.model import ModelFiles
from sdrun.launch.engine_args import ROLE_OPTIONS
from sdrun.launch.request import Request


def checked(request: Request, model: ModelFiles) -> FileSet:
    """The files of the model, and those named by engine arguments, as one set. Raises what check_file_set raises."""
    from sdrun.models.family import check_file_set

    files = {**model.files, **named_files((*model.engine_args, *request.engine_args))}
    return check_file_set(replace(model, files=MappingProxyType(files)), encodes=request.init is not None)


def named_files(arguments: tuple[str, ...]) -> Mapping[str, Path]:
    """The files that engine arguments give for parts of a model, by role."""
    roles = {option: role for role, option in ROLE_OPTIONS.items()} | {"--taesd": "tae", "--qwen2vl": "llm"}
    return {roles[option]: Path(value).expanduser() for option, value in pairwise(arguments) if option in roles}
