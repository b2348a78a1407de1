"""Where images/, templates/ and models/ are: in the installed package, or at the top of the checkout of an editable install.

The packaged copy is tried first: an editable install has none, and a wheel has no checkout above it. (In an editable install
hatchling's force-include lands in site-packages while the package itself is the checkout, so both places must be tried.)
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from sdrun.errors import UsageProblem

_PACKAGE = Path(__file__).resolve().parent


@cache
def _root(name: str) -> Path:
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"sdrun's own folder {name}/ is missing: reinstall sdrun")


def images_dir() -> Path:
    """The folder of catalogue files (images/)."""
    return _root("images")


def templates_dir() -> Path:
    """The folder of templates (templates/)."""
    return _root("templates")


def models_dir() -> Path:
    """Folder of the models that come with sdrun (models/): weights, cards, licences. Only `shipped` folders of the catalogue
    are in an installed package; a checkout also has what they were trained with."""
    return _root("models")


def cache_root() -> Path:
    """The user's cache folder for sdrun: `SDRUN_CACHE_DIR` if that is set, else the XDG one. It may not exist yet. Raises
    UsageProblem (`no-home`) where neither is known."""
    return own_folder("SDRUN_CACHE_DIR", "user_cache_path")


def own_folder(variable: str, kind: str) -> Path:
    """The folder that `variable` names, else what platformdirs says by the function `kind`. Raises UsageProblem (`no-home`) for
    a user without a home folder: an id that the system does not know, where HOME is not set either."""
    if override := os.environ.get(variable):
        return at_home(override).absolute()
    import platformdirs

    try:
        folder: Path = getattr(platformdirs, kind)("sdrun")
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():
        raise UsageProblem("you have no home folder, in which files could be kept", f"Set HOME or {variable}.", id="no-home")
    return folder


def at_home(path: str | Path) -> Path:
    """The path with its tilde spelt out; one that is nobody's home is a name like any other."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
