"""A hub on the loopback interface and a store to fill from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback.hub import Hub
from loopback.pulling import Pulling


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with no files yet."""
    with Hub() as running:
        yield running


@pytest.fixture
def pulling(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulling]:
    """An empty store, and no token of the user's."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    yield Pulling(tmp_path / "store", hub)
    from huggingface_hub import close_session

    close_session()
