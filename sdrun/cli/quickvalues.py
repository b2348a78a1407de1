"""Values of the command line that are plainly what their option wants, without the library that typer checks values with.

typer hands every value, also one that was not given, to an adapter of pydantic; importing that and making the adapters costs
0.08 s, more than a third of `sdrun resolve`. A text where a text is wanted, digits where a number is wanted and the like need
no check. Whatever else stands there (a wrong number, a choice, a bound) goes typer's own way and is told in its words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.core import TyperArgument, TyperOption

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")
# What an option may demand of its values beside their type; where one does, typer looks at them.
_DEMANDS = ("parser", "min", "max", "formats", "exists", "writable", "resolve_path", "path_type")


class _Unsure(Exception):
    """The value may not be what is wanted."""


@cache
def spare_adapters() -> None:
    """From the first call on, options and arguments of this process take plain values as they are."""
    for kind in (TyperOption, TyperArgument):
        checked = kind.process_value

        def process_value(self: Any, ctx: Any, value: Any, checked: Callable[..., Any] = checked) -> Any:
            return _processed(self, partial(checked, self), ctx, value)

        kind.process_value = process_value  # type: ignore[method-assign]


def _processed(parameter: TyperOption | TyperArgument, checked: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """What the parameter makes of the value; `checked` is typer's own way."""
    several = parameter.multiple or parameter.nargs != 1
    try:
        if value is None and not parameter.required:
            plain = () if several else None
        else:
            plain = _plain(parameter.type_descriptor, value)
    except (_Unsure, AttributeError):  # of a typer whose parameters are made otherwise nothing is known here
        return checked(context, value)
    return plain if parameter.callback is None else parameter.callback(context, parameter, plain)


def _plain(wanted: Any, value: Any) -> Any:
    """The value as the type that is wanted. Raises _Unsure where that takes a closer look."""
    demands = wanted.parameter_info
    if any(getattr(demands, name) for name in _DEMANDS) or not (demands.file_okay and demands.dir_okay):
        raise _Unsure
    if get_origin(wanted.annotation) is list and isinstance(value, list | tuple) and value:
        (kind,) = get_args(wanted.annotation)
        return [_of_kind(kind, item) for item in value]
    return _of_kind(wanted.annotation, value)


def _of_kind(kind: Any, value: Any) -> Any:
    if kind in (bool, int, float) and type(value) is kind:  # a default
        return value
    if not isinstance(value, str):
        raise _Unsure
    if kind is str and _is_text(value):
        return value
    if kind is int and _WHOLE.fullmatch(value):
        return int(value)
    if kind is float and _NUMBER.fullmatch(value):
        return float(value)
    if kind is Path and _may_be_read(Path(value)):
        return Path(value)
    raise _Unsure


def _is_text(value: str) -> bool:
    """False for bytes of the command line that are no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _may_be_read(path: Path) -> bool:
    """True also where nothing is there: whether something must be is the verb's to say."""
    try:
        path.stat()
    except (OSError, ValueError):
        return True
    return os.access(path, os.R_OK)
