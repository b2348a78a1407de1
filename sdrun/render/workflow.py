"""CI workflows: templates, the pins of images/workflows.yaml, and for a GitLab pipeline the rows of a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from sdrun.catalog.workflows import Workflows
from sdrun.resources import templates_dir

if TYPE_CHECKING:
    from jinja2 import Environment

Kind = Literal["github", "gitlab", "gitlab-images"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Row = Mapping[str, object]
# Where each template goes. In the workflows' own language both `{{ }}` and `[[ ]]` mean something, hence @{ }@.
_PLACES: Mapping[Kind, Mapping[str, str]] = {
    "github": {f".github/workflows/{name}.yml": f"ci/github/{name}.yml.j2" for name in ("images", "publish", "test", "bump")},
    "gitlab": {".gitlab-ci.yml": "ci/gitlab/gitlab-ci.yml.j2"},
    "gitlab-images": {"images.gitlab-ci.yml": "ci/gitlab/images.gitlab-ci.yml.j2"},
}
_DEPTH: Mapping[Kind, int] = {"github": 10, "gitlab": 6, "gitlab-images": 6}  # blanks before the lines of a script


def render_workflows(kind: Kind, pins: Workflows, rows: Sequence[Row] = ()) -> dict[str, str]:
    """Path -> text of the workflows of that kind; `rows` (of `sdrun matrix --format github`) for `gitlab-images`. The same pins
    and rows give the same bytes."""
    return {place: _rendered(template, kind, pins, rows) for place, template in _PLACES[kind].items()}


def _rendered(template: str, kind: Kind, pins: Workflows, rows: Sequence[Row]) -> str:
    values = {
        "os": pins.os,
        "unneeded": " ".join(pins.unneeded),
        "image": pins.image,
        "packages": " ".join(pins.packages),
        "docker": pins.docker,
        "runners": pins.runners,
    }

    def use(action: str, part: str = "") -> str:
        pin = pins.actions[action]
        return f"{action}{'/' if part else ''}{part}@{pin.commit} # {pin.version}"

    def script(name: str) -> str:
        text = _environment().get_template(f"ci/steps/{name}.sh").render(values)
        return "\n".join(" " * _DEPTH[kind] + line if line else "" for line in text.rstrip("\n").split("\n"))

    return _environment().get_template(template).render(values, rows=rows, use=use, script=script)


@cache
def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()),
        undefined=jinja2.StrictUndefined,
        variable_start_string="@{",
        variable_end_string="}@",
        block_start_string="@%",
        block_end_string="%@",
        comment_start_string="@#",
        comment_end_string="#@",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the output is no HTML
    )
