"""One pull from the loopback hub into a store, with what was said, shown and waited for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from loopback.hub import Hub
from loopback.store import environment
from sdrun.core.model import Model
from sdrun.models.blobs import Blobs
from sdrun.models.meter import Progress
from sdrun.models.names import Names, StoredModel
from sdrun.models.pull import Puller, Wishes


@dataclass
class Pulling:
    """A store and the hub it is filled from. `waits` are the seconds it would have waited; no time passes in tests."""

    root: Path
    hub: Hub
    said: list[str] = field(default_factory=list)
    shown: list[Progress] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, model: Model, wishes: Wishes | None = None) -> StoredModel:
        """Pulls the model."""
        environ = environment(self.hub, **self.more)
        return Puller(self.root, self.said.append, self.shown.append, wishes, environ, wait=self.wait).pull(model)

    def wait(self, seconds: float) -> None:
        """Notes the wait and returns at once."""
        with self.lock:
            self.waits.append(seconds)

    @property
    def blobs(self) -> Blobs:
        """The files of the store."""
        return Blobs(self.root)

    @property
    def names(self) -> Names:
        """The models of the store."""
        return Names(self.root)

    @property
    def partials(self) -> list[Path]:
        """What is kept of unfinished downloads."""
        return sorted((self.root / "partial").glob("*"))

    def visible(self) -> dict[str, bytes]:
        """Every file a user of the store can see under a name, by that name."""
        found = {}
        for stored in self.names.all():
            for role, file in stored.files.items():
                found[file.name] = self.names.path(stored.name, role, file).read_bytes()
        return found
