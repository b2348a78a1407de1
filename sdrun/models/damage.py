"""The error of the header readers, and words for files that are none of theirs."""

from __future__ import annotations


class Damaged(ValueError):
    """The file is no whole model file; the text says why."""


def no_model(start: bytes) -> str:
    """What a file that starts with these bytes is instead of a model, where that can be told."""
    if start.startswith(b"version "):
        return "it is a Git LFS pointer; the file itself was not fetched"
    if start.lstrip().startswith(b"<"):
        return "it is a web page"
    return "it starts like no GGUF, safetensors or PyTorch file"
