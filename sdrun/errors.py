"""Every error sdrun can end with, in one place.

One place, so that ids and exit codes can be read side by side: a script that runs sdrun branches on them, and two errors
that look alike to it are a bug. An error is one sentence (what is wrong) and one remedy (the one thing to change). The exit
codes are those of the command line's contract: 1 unexpected, 2 usage, 3 no usable GPU, 4 no image for this GPU, 5 driver too
old, 6 container runtime or its access to the GPU missing, 7 download or verification failed, 8 bad configuration or
catalogue, 9 the engine failed, 10 not enough memory or disk, 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar


class SdrunError(Exception):
    """Base of all. `id` is stable and machine-readable; an instance may narrow its class's id, never its exit code."""

    id: str = "unexpected"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str, *, id: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.detail = detail  # raw text shown below the verdict (a log's tail), never part of the sentence
        if id is not None:
            self.id = id

    def to_json(self) -> dict[str, object]:
        """The object `--json` prints on stdout (schema sdrun.error/v1)."""
        return {
            "schema": "sdrun.error/v1",
            "id": self.id,
            "exit_code": self.exit_code,
            "message": self.message,
            "remedy": self.remedy,
        }


class UsageProblem(SdrunError):
    """The command line asks for something that cannot be: ids `bad-option`, `unknown-model`, `model-file-missing`,
    `model-file-unreadable`, `output-not-writable`, `cache-not-writable`, ..."""

    id = "bad-option"
    exit_code = 2


class NoGpu(SdrunError):
    """No usable NVIDIA GPU or driver."""

    id = "no-gpu"
    exit_code = 3


class NoImage(SdrunError):
    """No image serves this GPU (the resolver's own refusals with exit code 4 use their rejection id)."""

    id = "no-code-for-capability"
    exit_code = 4


class DriverTooOld(SdrunError):
    """A newer driver is needed."""

    id = "driver-too-old"
    exit_code = 5


class RuntimeUnavailable(SdrunError):
    """No container runtime, or no access to it or to its GPU: ids `runtime-missing`, `runtime-down`,
    `runtime-permission`, `image-missing`, `gpu-access-unavailable`, `runtime-failed`."""

    id = "runtime-missing"
    exit_code = 6


class VerificationFailed(SdrunError):
    """A download failed or what arrived is not what was pinned: ids `hash-mismatch`, `download-failed`, `image-differs`,
    `model-file-damaged`."""

    id = "hash-mismatch"
    exit_code = 7


class BadConfiguration(SdrunError):
    """A file sdrun was told to read is wrong: ids `bad-catalogue`, `bad-host-facts`, `bad-index`, `bad-config`."""

    id = "bad-catalogue"
    exit_code = 8


class EngineFailed(SdrunError):
    """The engine (or a build of it) failed; the id is the verdict's."""

    id = "engine-failed"
    exit_code = 9


class NotEnoughMemory(SdrunError):
    """GPU memory, RAM or disk ran out: ids `out-of-gpu-memory`, `out-of-memory`, `disk-full`."""

    id = "out-of-memory"
    exit_code = 10


class Interrupted(SdrunError):
    """The user stopped it."""

    id = "interrupted"
    exit_code = 130


BY_EXIT_CODE: dict[int, type[SdrunError]] = {
    cls.exit_code: cls
    for cls in (
        SdrunError,
        UsageProblem,
        NoGpu,
        NoImage,
        DriverTooOld,
        RuntimeUnavailable,
        VerificationFailed,
        BadConfiguration,
        EngineFailed,
        NotEnoughMemory,
        Interrupted,
    )
}


def from_refusal(id: str, exit_code: int, message: str, remedy: str) -> SdrunError:
    """The error for a refusal that was reached as a value (resolver, diagnosis)."""
    return BY_EXIT_CODE.get(exit_code, SdrunError)(message, remedy, id=id)
