"""A fleet's lock as text, and a fleet's workloads as Kubernetes objects, compose files and quadlet units."""

from __future__ import annotations

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
    made.filters["yaml_list"] = flow_list
    return made
