"""All files of a model into the store, side by side: what it will take is known and said before the first byte."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sdrun.core.model import HubFile, Model, ModelFile
from sdrun.core.size import size_text
from sdrun.errors import NotEnoughMemory, UsageProblem, VerificationFailed
from sdrun.models.blobs import Blobs
from sdrun.models.hub import Hub, Later, Offer, offline, offline_refusal
from sdrun.models.locks import filling, store_lock
from sdrun.models.meter import Meter, Show
from sdrun.models.names import Names, Pin, StoredFile, StoredModel, new_pin
from sdrun.models.sidebyside import side_by_side
from sdrun.models.transfer import Job, Patience, Say, Stopped, Transfer

RESERVE = 64 << 20  # bytes of the disk left free: a store that fills it to the last one breaks everything else


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user allows. `offline`: fetch nothing; `accepted`: the licence, where it asks to be accepted; `repin`: what the
    hub has today, whatever earlier downloads brought."""

    offline: bool = False
    accepted: bool = False
    repin: bool = False


class Puller:
    """Brings models of the catalogue into the store at `root`. `patience` and `wait` are for tests."""

    def __init__(
        self,
        root: Path,
        say: Say,
        show: Show | None = None,
        wishes: Wishes | None = None,
        environ: Mapping[str, str] = os.environ,
        patience: Patience | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._root = root
        self._blobs = Blobs(root)
        self._names = Names(root)
        self._say = say
        self._show = show
        self._wishes = wishes or Wishes()
        self._environ = environ
        self._stop = threading.Event()
        self._patience = patience or Patience()
        self._wait = wait or self._stop.wait

    def pull(self, model: Model) -> StoredModel:
        """The model, whole and checked, entered under its name. What is there already is not fetched again.

        Raises VerificationFailed (`model-gated`, `download-failed`, `hash-mismatch`, `model-not-fetched`, ...),
        NotEnoughMemory (`disk-full`), UsageProblem (`licence-not-accepted`), Interrupted.
        """
        wanted = {role: self._known(file) for role, file in model.files.items()}
        self._to_fetch(model, wanted)  # a refusal comes before anything is made
        with filling(self._root):
            missing = self._to_fetch(model, wanted)
            had = self._fetch(model, missing) if missing else {}
            files = {role: had.get(file) or self._kept(file) for role, file in wanted.items()}
            stored = StoredModel(model.name, model.family, model.quantisation, model.licence.name, MappingProxyType(files))
            with store_lock(self._root):
                self._names.put(stored)
                self._record(model, files)
        return stored

    def _to_fetch(self, model: Model, wanted: Mapping[str, ModelFile]) -> dict[ModelFile, HubFile]:
        """The files that are not there, and where they are from. Raises UsageProblem or VerificationFailed where there are some
        and they may not be fetched."""
        missing = {file: source for file in wanted.values() if (source := file.from_hub) and not self._there(file)}
        if missing:
            self._may_fetch(model)
        return missing

    def _known(self, file: ModelFile) -> ModelFile:
        """The file with what an earlier download recorded of it, where the catalogue does not say."""
        if file.sha256 is not None or file.from_hub is None or self._wishes.repin:
            return file
        pin = self._names.pin(file.from_hub)
        if pin is None:
            return file
        source = replace(file.from_hub, revision=pin.revision)
        return replace(file, sha256=pin.sha256, bytes=pin.bytes, from_hub=source)

    def _there(self, file: ModelFile) -> bool:
        return file.sha256 is not None and self._blobs.state(file.sha256, file.bytes) == "whole"

    def _kept(self, file: ModelFile) -> StoredFile:
        """A file that was there: its content is what it is known by."""
        assert file.sha256 is not None  # else it would have been fetched
        size = self._blobs.path(file.sha256).stat().st_size
        source = file.from_hub
        if source is None:
            return StoredFile(file.name, size, file.sha256)
        known = (known for model in self._names.all() for known in model.files.values() if known.sha256 == file.sha256)
        met = (known.revision for known in known if (known.repository, known.path) == (source.repository, source.path))
        revision = source.revision or next(met, None)
        return StoredFile(file.name, size, file.sha256, source.repository, source.path, revision)

    def _may_fetch(self, model: Model) -> None:
        licence = model.licence
        if licence.accept and not self._wishes.accepted and self._names.get(model.name) is None:
            raise UsageProblem(
                f"{model.title} has a licence you must accept first: {licence.name}, commercial use {licence.commercial}",
                f"Read {licence.page}, then: sdrun models pull {model.name} --accept-licence",
                id="licence-not-accepted",
            )
        if self._wishes.offline or offline(self._environ):
            raise offline_refusal(f"the model {model.name}")

    def _fetch(self, model: Model, missing: Mapping[ModelFile, HubFile]) -> dict[ModelFile, StoredFile]:
        hub = Hub(self._environ)
        transfer = Transfer(self._root, hub, self._say, self._stop, self._patience, self._wait)
        offers = side_by_side(missing.items(), lambda entry: self._look(hub, *entry), self._stop)
        jobs = [_job(file, offer) for file, offer in zip(missing, offers, strict=True)]
        self._check_room(model, jobs, transfer)
        meter = Meter(sum(job.size for job in jobs), self._show)
        digests = side_by_side(jobs, lambda job: transfer.fetch(job, meter), self._stop)
        return {
            file: StoredFile(file.name, job.size, digest, job.source.repository, job.source.path, job.source.revision)
            for file, job, digest in zip(missing, jobs, digests, strict=True)
        }

    def _look(self, hub: Hub, file: ModelFile, source: HubFile) -> Offer:
        failures = 0
        while True:
            try:
                return hub.look(source)
            except Later as fault:
                failures += 1
                if self._stop.is_set():
                    raise Stopped from None
                if failures >= self._patience.attempts:
                    raise VerificationFailed(
                        f"{hub.endpoint} cannot be asked for {source}: {fault}",
                        "Check the network, the proxy and HF_ENDPOINT, then run again.",
                        id="download-failed",
                    ) from None
                self._wait(self._patience.seconds(failures, fault.seconds))
            except VerificationFailed as fault:
                if file.gated and fault.id == "download-failed":  # some mirrors do not say why they refuse
                    raise hub.gated(source) from None
                raise

    def _check_room(self, model: Model, jobs: Sequence[Job], transfer: Transfer) -> None:
        """Says what will be fetched, and refuses before the first byte what the disk cannot hold."""
        self._root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._root).free
        partials = (transfer.partial(job) for job in jobs)
        kept = sum(path.stat().st_size for path in partials if path.exists())
        needed = sum(job.size for job in jobs) - kept
        files = f"{len(jobs)} file{'s' if len(jobs) > 1 else ''}"
        resumed = f" ({size_text(kept)} are there from before)" if kept else ""
        self._say(f"{model.name}: fetching {size_text(needed)} in {files}{resumed}; {size_text(free)} free in {self._root}")
        if needed + RESERVE > free:
            raise NotEnoughMemory(
                f"{model.name} needs {size_text(needed + RESERVE)} in {self._root}, and {size_text(free)} are free there",
                "Free some space (sdrun models rm), or set SDRUN_MODELS_DIR to a folder on another disk.",
                id="disk-full",
            )

    def _record(self, model: Model, files: Mapping[str, StoredFile]) -> None:
        """Writes down what the catalogue does not know, and says so."""
        new: dict[HubFile, Pin] = {}
        for role, wanted in model.files.items():
            source, file = wanted.from_hub, files[role]
            if wanted.sha256 is not None or source is None:
                continue
            known = self._names.pin(source)
            if known is None or known.sha256 != file.sha256:
                new[source] = new_pin(file.sha256, file.bytes, file.revision)
                self._say(
                    f"{file.name} was not pinned; from now on it is: sha256 {file.sha256} "
                    f"at revision {file.revision} (recorded in {self._names.pins_file})"
                )
        if new:
            self._names.record(new)


def _job(file: ModelFile, offer: Offer) -> Job:
    """What to fetch, from what is pinned and what the hub has. Raises VerificationFailed where they cannot be the same file:
    better now than after gigabytes."""
    source = file.from_hub
    assert source is not None  # only files of a hub are fetched
    if file.sha256 is not None and offer.sha256 is not None and file.sha256 != offer.sha256:
        raise _replaced(source, f"sha256 {offer.sha256[:16]}...", f"{file.sha256[:16]}...")
    size = offer.size if offer.size is not None else file.bytes
    if size is None:
        raise VerificationFailed(
            f"the hub does not say how long {source} is",
            "Check HF_ENDPOINT and the proxy: this does not look like a hub's answer.",
            id="download-failed",
        )
    if file.bytes is not None and size != file.bytes:
        raise _replaced(source, f"{size} bytes", f"{file.bytes}")
    fixed = replace(source, revision=offer.revision)
    return Job(file.name, fixed, size, file.sha256 or offer.sha256, offer.etag, file.sha256 is not None)


def _replaced(source: HubFile, has: str, pinned: str) -> VerificationFailed:
    return VerificationFailed(
        f"{source} is not the file that is pinned: at the hub it has {has} instead of {pinned}; nothing was fetched",
        "Its owner replaced it. Use another quantisation, or sdrun models pull --repin where the pin was recorded here.",
        id="hash-mismatch",
    )
