"""What several checks look at: the runtime, the host's facts, the index, what would be chosen. Each found out once, and only if
a check asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from sdrun.catalog.runtimes import readable_here
from sdrun.core.facts import CudaFacts
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve
from sdrun.errors import SdrunError
from sdrun.launch.localimages import local_index
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

T = TypeVar("T")


class Once(Generic[T]):
    """A value found out by the first thread that asks; the others wait for it. An SdrunError is kept and raised to each."""

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._answer: list[T] = []
        self._error: SdrunError | None = None

    def __call__(self) -> T:
        """The value, or the error."""
        with self._lock:
            if not self._answer and self._error is None:
                try:
                    self._answer.append(self._find())
                except SdrunError as error:
                    self._error = error
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def or_none(self) -> T | None:
        """The value, or None where it is an error: for checks that are not the ones to tell it."""
        try:
            return self()
        except SdrunError:
            return None


@dataclass(frozen=True)
class Surroundings:
    """Where the checks look. `from_file`: the facts are those of another host, which nothing on this machine belongs to.
    `data_folder` says where a runtime keeps its images, None where that is on no disk of this machine."""

    environ: Mapping[str, str]
    root: Path
    from_file: bool
    open_runtime: Callable[[], ContainerRuntime]
    runtime: Once[ContainerRuntime]
    host: Once[HostFacts]
    published: Index | None
    cuda: Once[CudaFacts]
    now: Callable[[], datetime]
    cache: Path
    state: Path
    registry: str | None
    data_folder: Callable[[ContainerRuntime], Path | None]
    index: Once[Index]
    answer: Once[Plan | Refusal]

    @classmethod
    def of(
        cls,
        *,
        environ: Mapping[str, str],
        open_runtime: Callable[[], ContainerRuntime],
        find_host: Callable[[ContainerRuntime | None], HostFacts],
        find_cuda: Callable[[], CudaFacts],
        cache: Path,
        state: Path,
        published: Index | None = None,
        root: Path = Path("/"),
        from_file: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        registry: str | None = None,
        data_folder: Callable[[ContainerRuntime], Path | None] = lambda runtime: None,
    ) -> Surroundings:
        """Ties the parts together: index and answer follow from runtime, host and policy."""
        runtime, cuda = Once(open_runtime), Once(find_cuda)
        host = Once(lambda: find_host(runtime.or_none()))
        index = Once(lambda: readable_here(published, host().runtime) if published is not None else local_index(runtime())[0])
        answer = Once(lambda: resolve(host(), index(), policy(environ), cuda()))
        return cls(
            environ=environ,
            root=root,
            from_file=from_file,
            open_runtime=open_runtime,
            runtime=runtime,
            host=host,
            published=published,
            cuda=cuda,
            now=now,
            cache=cache,
            state=state,
            registry=registry,
            data_folder=data_folder,
            index=index,
            answer=answer,
        )

    def local_image(self, reference: str) -> LocalImage | None:
        """The image if the runtime has it; None also where there is no runtime or it takes the reference for none."""
        runtime = self.runtime.or_none()
        try:
            return runtime.image(reference) if runtime is not None else None
        except SdrunError:
            return None


def policy(environ: Mapping[str, str]) -> Policy:
    """What a run without options asks for on this machine."""
    from sdrun.probe.visible import device_order, visible_devices

    return Policy(visible=visible_devices(environ), device_order=device_order(environ))
