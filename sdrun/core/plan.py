"""What `resolve` answers, schema `sdrun.plan/v1`: a plan or a refusal, each with the images that cannot run and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from sdrun.core.decode import Fields, Malformed, check
from sdrun.core.device import Device
from sdrun.core.policy import Change

SCHEMA = "sdrun.plan/v1"

CodePath = Literal["sass-exact", "sass-compatible", "ptx-jit", "cpu"]
GpuAccess = Literal["cdi", "gpus-flag", "none"]
Reason = Literal[
    "platform-mismatch",
    "no-code-for-capability",
    "driver-too-old",
    "ptx-newer-than-driver",
    "fatbin-compression-newer-than-driver",
    "arch-mismatch",
    "jit-forbidden",
    "cpu-not-allowed",
    "no-gpu",
    "gpu-not-found",
    "gpu-access-unavailable",
    "mixed-gpus",
]
CODE_PATHS: tuple[CodePath, ...] = get_args(CodePath)  # best first
EXIT_CODES: dict[str, int] = dict.fromkeys(get_args(Reason), 4) | {
    "no-gpu": 3,
    "gpu-not-found": 2,
    "gpu-access-unavailable": 6,
    "driver-too-old": 5,
    "ptx-newer-than-driver": 5,
    "fatbin-compression-newer-than-driver": 5,
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image that cannot run here, and why in one line."""

    target: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Handover:
    """What a launcher needs beyond the document. `requests`: what to ask the runtime for, CDI names
    (`nvidia.com/gpu=GPU-...`) or, with `gpus-flag`, UUIDs. `narrow_to`: UUIDs for CUDA_VISIBLE_DEVICES in the container where
    the runtime can only hand over more than was chosen, else empty. `jit_seconds`: what the first run may take longer, None
    where nothing is JIT-compiled. `notes`: what people should be told, one sentence each; `jit_note`: the one of them about the
    first run, which is not for those who have what an earlier run compiled."""

    gpus: tuple[Device, ...] = ()
    requests: tuple[str, ...] = ()
    narrow_to: tuple[str, ...] = ()
    jit_seconds: int | None = None
    notes: tuple[str, ...] = ()
    jit_note: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The image to run and the GPUs to hand over by UUID. `image` is its reference by digest."""

    target: str
    image: str
    code_path: CodePath
    devices: tuple[str, ...]
    gpu_access: GpuAccess
    rejected: tuple[Rejection, ...] = ()
    handover: Handover = field(default=Handover(), compare=False)

    def to_json(self) -> dict[str, object]:
        """The document, schema sdrun.plan/v1."""
        return {
            "schema": SCHEMA,
            "status": "ok",
            "target": self.target,
            "image": self.image,
            "code_path": self.code_path,
            "devices": list(self.devices),
            "gpu_access": self.gpu_access,
            "rejected": _rejected(self.rejected),
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing runs, and the one remedy. `change` is the remedy for programs."""

    id: Reason
    message: str
    remedy: str
    rejected: tuple[Rejection, ...] = ()
    change: Change = field(default=Change(), compare=False)

    @property
    def exit_code(self) -> int:
        """The exit code that goes with `id`."""
        return EXIT_CODES[self.id]

    def to_json(self) -> dict[str, object]:
        """The document, schema sdrun.plan/v1."""
        return {
            "schema": SCHEMA,
            "status": "refused",
            "error": {"id": self.id, "exit_code": self.exit_code, "message": self.message, "remedy": self.remedy},
            "rejected": _rejected(self.rejected),
        }


def _rejected(rows: tuple[Rejection, ...]) -> list[dict[str, str]]:
    return [{"target": row.target, "reason": row.reason, "detail": row.detail} for row in rows]


def from_json(document: object) -> Plan | Refusal:
    """Plan or Refusal from a parsed document (without what a document does not carry: `handover`, `change`); raises Malformed
    naming the key."""
    top = Fields(document)
    if (schema := top.get("schema", str)) != SCHEMA:
        raise Malformed("schema", f"must be {SCHEMA!r}, not {schema[:40]!r}")
    rows = (Fields(value, path) for path, value in top.items("rejected"))
    rejected = tuple(Rejection(row.get("target", str), _reason(row, "reason"), row.get("detail", str)) for row in rows)
    if _one_of(top, "status", ("ok", "refused")) == "refused":
        error = Fields(top.get("error", dict), "error")
        refusal = Refusal(_reason(error, "id"), error.get("message", str), error.get("remedy", str), rejected)
        if error.get("exit_code", int) != refusal.exit_code:
            raise Malformed("error.exit_code", f"must be {refusal.exit_code} for {refusal.id}")
        return refusal
    return Plan(
        target=top.get("target", str),
        image=top.get("image", str),
        code_path=cast("CodePath", _one_of(top, "code_path", CODE_PATHS)),
        devices=tuple(check(value, str, path) for path, value in top.items("devices")),
        gpu_access=cast("GpuAccess", _one_of(top, "gpu_access", get_args(GpuAccess))),
        rejected=rejected,
    )


def _one_of(row: Fields, name: str, allowed: tuple[str, ...]) -> str:
    value = row.get(name, str)
    if value not in allowed:
        raise Malformed(row.key(name), f"must be one of {', '.join(allowed)}, not {value[:40]!r}")
    return value


def _reason(row: Fields, name: str) -> Reason:
    return cast("Reason", _one_of(row, name, get_args(Reason)))
