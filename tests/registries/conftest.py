"""One registry behind one front for each test module, each test with a repository and a home of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdrun.core.reference import Reference, Repository
from sdrun.registry.client import Registry
from sdrun.registry.patience import Patience
from tests.registries.front import Front
from tests.registries.server import Authority, RegistryProcess, lay_down

_NUMBERS = itertools.count(1)


@dataclass
class Place:
    """A repository behind the front: `waits` are the pauses that were made, none of them slept, `pauses` what was told of them;
    `said` is for what else is told."""

    front: Front
    server: RegistryProcess
    reference: Reference
    home: Path
    waits: list[float]
    said: list[str]
    pauses: list[str]
    clients: list[Registry]

    @property
    def repository(self) -> Repository:
        """Its name."""
        return self.reference.repository

    def open(self, path: str | None = None, attempts: int = 5) -> Registry:
        """A client of its own, as another process would have."""
        repository = Repository(self.repository.host, path or self.repository.path)
        patience = Patience(attempts=attempts, wait=self.waits.append, say=self.pauses.append)
        self.clients.append(Registry(repository, patience, self.environ))
        return self.clients[-1]

    @property
    def environ(self) -> dict[str, str]:
        """Where logins and authorities are found."""
        return {"HOME": str(self.home), "PATH": os.environ["PATH"]}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """The registry itself, with a password, behind the front: plain HTTP."""
    process = RegistryProcess(tmp_path_factory.mktemp("registry"), tls=None)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def module_front(server: RegistryProcess, authority: Authority) -> Iterator[Front]:
    front = Front(server.port, authority.issue("front"))
    yield front
    front.close()


@pytest.fixture
def place(
    module_front: Front, server: RegistryProcess, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A fresh repository; HOME leads to its login and its authority."""
    home = tmp_path / "home"
    home.mkdir()
    lay_down(home, module_front.host, authority.certificate)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SDRUN_REGISTRY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    reference = Reference.parse(f"{module_front.host}/team/r{next(_NUMBERS)}")
    made = Place(module_front, server, reference, home, [], [], [], [])
    yield made
    for client in made.clients:
        client.close()
    module_front.faults.clear()
    module_front.seen.clear()


@pytest.fixture
def registry(place: Place) -> Registry:
    return place.open()
