"""A fleet's lock as text, and a fleet's workloads as Kubernetes objects, compose files and quadlet units."""

from __future__ import annotations

import shlex
from functools import cache
from typing import TYPE_CHECKING

from sdrun.core.lock import SCHEMA, Lock
from sdrun.render.yamltext import flow_list, scalar
from sdrun.resources import templates_dir

if TYPE_CHECKING:
    from jinja2 import Environment


def render_lock(lock: Lock) -> str:
    """The lock file's text, without anybody's comments: the same lock, the same text."""
    return environment().get_template("fleet/lock.yaml.j2").render(lock=lock, schema=SCHEMA)


@cache
def environment() -> Environment:
    """Templates for files of YAML and for units of systemd."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        autoescape=False,  # YAML and units, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["yaml"] = scalar
    made.filters["container_word"] = container_word
    made.filters["unit_word"] = unit_word
    made.filters["shell"] = shlex.quote
    made.filters["yaml_list"] = flow_list
    return made


def container_word(text: str) -> str:
    """A word of a command as Kubernetes, compose and systemd take it: all read `$` as the beginning of a variable, and `$$` as
    `$`."""
    return text.replace("$", "$$")


def unit_word(text: str) -> str:
    """A word in a unit file: `%` begins a specifier, and what is not plain is quoted (systemd.syntax(7))."""
    word = text.replace("%", "%%")
    if word and all(character.isalnum() or character in "-_./=:,@%+$" for character in word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
