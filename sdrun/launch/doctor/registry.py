"""The checks in the order in which they must be mended, and how they are run: side by side, each within its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass

from sdrun.errors import SdrunError
from sdrun.launch.doctor import computing, containers, host, places
from sdrun.launch.doctor.check import Check, Outcome, fail, failed_by, skip
from sdrun.launch.doctor.surroundings import Surroundings

LIMIT_S = 6.0  # the container runtime has five of them for its first answer
PROBE_LIMIT_S = 10.0  # five for the first of the driver's libraries, two for each of the others if that one hangs
DRAW_LIMIT_S = 60.0  # a picture takes three seconds on two idle cores
START_LIMIT_S = 12.0  # the driver takes seconds to start on a host of eight GPUs without nvidia-persistenced


@dataclass(frozen=True, slots=True)
class Item:
    """A check: its name, what it does, the names of the checks whose findings it builds on, the seconds it may take, and the
    exit code and remedy for one that does not come back."""

    name: str
    look: Callable[[Surroundings], Outcome]
    after: tuple[str, ...] = ()
    limit_s: float = LIMIT_S
    exit_code: int = 6
    remedy: str = "sudo systemctl restart docker"


_NVIDIA_SMI = "nvidia-smi (if it hangs too, restart the machine)"
CHECKS: tuple[Item, ...] = (
    Item("runtime", containers.runtime),
    Item("gpu", host.gpu, ("runtime",), PROBE_LIMIT_S, exit_code=3, remedy=_NVIDIA_SMI),
    Item("gpu-access", containers.gpu_access, ("runtime", "gpu"), PROBE_LIMIT_S),
    Item("driver", host.driver, ("runtime", "gpu"), PROBE_LIMIT_S, exit_code=3, remedy=_NVIDIA_SMI),
    Item("image", containers.image, ("runtime", "gpu"), PROBE_LIMIT_S),
    Item("container", containers.container, ("runtime",), START_LIMIT_S),
    Item("gpu-container", containers.gpu_container, ("runtime", "gpu"), START_LIMIT_S),
    Item("selftest", computing.selftest, ("runtime", "gpu"), DRAW_LIMIT_S, exit_code=9, remedy="sdrun selftest"),
    Item("cpu", host.processor),
    Item("disk-images", places.disk_images, ("runtime",), exit_code=10, remedy="df -h (a file system hangs)"),
    Item("disk-models", places.disk_models, exit_code=10, remedy="df -h (a file system hangs)"),
    Item("cache", places.cache, exit_code=2, remedy="df -h (a file system hangs)"),
    Item("state", places.state, exit_code=2, remedy="df -h (a file system hangs)"),
    Item("registry", places.registry, exit_code=7, remedy="Check network and proxy."),
    Item("clock", places.clock),
    Item("machine", host.machine, ("runtime", "gpu"), PROBE_LIMIT_S, exit_code=3, remedy=_NVIDIA_SMI),
    Item("overrides", host.overrides, ("runtime", "gpu"), PROBE_LIMIT_S, exit_code=3, remedy=_NVIDIA_SMI),
)


def examine(around: Surroundings, items: Sequence[Item] = CHECKS) -> tuple[Check, ...]:
    """Every finding, in the order of `items`. Takes no longer than the longest limit: a check that does not come back is told
    as a failure, or as skipped where it waits for one that does not."""
    started = time.monotonic()
    running = {item.name: _start(item, around) for item in items}
    hung: set[str] = set()
    checks = []
    for item in items:
        outcome = _outcome(item, running, started, hung)
        checks.append(Check(item.name, outcome.status, outcome.seen, outcome.remedy, outcome.exit_code))
    return tuple(checks)


def _start(item: Item, around: Surroundings) -> Future[Outcome]:
    """Looks in a daemon thread: one that hangs in a driver or a file system must not keep the process from ending, which the
    threads of a ThreadPoolExecutor do."""
    future: Future[Outcome] = Future()

    def look() -> None:
        try:
            future.set_result(item.look(around))
        except SdrunError as error:
            future.set_result(failed_by(error))
        except BaseException as fault:  # noqa: BLE001 - a defect: handed to the thread that waits, which raises it
            future.set_exception(fault)

    threading.Thread(target=look, name=f"doctor-{item.name}", daemon=True).start()
    return future


def _outcome(item: Item, running: Mapping[str, Future[Outcome]], started: float, hung: set[str]) -> Outcome:
    left = max(0.0, started + item.limit_s - time.monotonic())
    try:
        return running[item.name].result(timeout=left)
    except TookTooLong:
        hung.add(item.name)
        if waits := [name for name in item.after if name in hung]:
            return skip(f"waits for {waits[0]}, which does not come back")
        return fail(f"no answer within {item.limit_s:.0f} s", item.remedy, item.exit_code)
