"""A target -> the files of its build context, all but the engine's sources."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from sdrun.core.engine import Engine
from sdrun.core.labels import image_labels
from sdrun.core.target import Base, Target
from sdrun.resources import templates_dir

if TYPE_CHECKING:
    from jinja2 import Environment

USER_ID = 65532  # "nonroot" of the distroless images; Kubernetes' runAsNonRoot wants a number
CONTEXT_SOURCE = "engine.tar"  # what the Dockerfile ADDs; sdrun build puts it beside the rendered files


def render(target: Target, engine: Engine, base: Base) -> dict[str, str]:
    """File name -> text: `Dockerfile` and the script it runs. A pure function of the catalogue and the templates: two renders
    are byte-identical. Raises jinja2.UndefinedError for a template that names what is not there (a defect, not bad input)."""
    text = (
        _environment()
        .get_template("Dockerfile.j2")
        .render(
            target=target,
            engine=engine,
            base=base,
            cmake=cmake_options(target, engine),
            labels=image_labels(target, engine, base),
            user=USER_ID,
        )
    )
    script = "collect-rootfs.sh"
    return {"Dockerfile": text, script: (templates_dir() / script).read_text(encoding="utf-8")}


def cmake_options(target: Target, engine: Engine) -> Mapping[str, str]:
    """Every -D option of this target, sorted by name; the CPU level's win over the engine's own."""
    return dict(sorted({**engine.cmake, **engine.cpu_levels[target.cpu_level]}.items()))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        autoescape=False,  # Dockerfiles, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = shlex.quote
    environment.filters["quoted"] = quoted
    return environment


def quoted(text: str) -> str:
    """`text` as a double-quoted Dockerfile word, in which `$` would start a variable."""
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")
