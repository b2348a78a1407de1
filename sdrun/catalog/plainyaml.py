"""YAML of other programs, read without a schema: lists, mappings and strings."""

from __future__ import annotations

import yaml

# Every scalar stays the text it is: a device named 0 is "0", and nothing becomes a date or a float.
_LOADER: type[yaml.BaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def load_plain(text: str) -> object:
    """The value of the first document in `text`, made of dict, list, str and None. Raises ValueError where it is not YAML."""
    try:
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as fault:
        raise ValueError(f"is not YAML: {' '.join(str(fault).split())[:200]}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
