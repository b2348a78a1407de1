"""One finding of the doctor, and the exit code of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdrun.errors import SdrunError

SCHEMA = "sdrun.doctor/v1"
Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found. `remedy`: one command or sentence, for `warn` and `fail`; `exit_code`: that of the error which a run
    would end with, for `fail`."""

    status: Status
    seen: str
    remedy: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """An outcome under the name of its check."""

    name: str
    status: Status
    seen: str
    remedy: str | None = None
    exit_code: int = 0

    def to_json(self) -> dict[str, str | None]:
        """One row of schema sdrun.doctor/v1."""
        return {"name": self.name, "status": self.status, "seen": self.seen, "remedy": self.remedy}


def ok(seen: str) -> Outcome:
    """Nothing to do."""
    return Outcome("ok", seen)


def skip(why: str) -> Outcome:
    """Not looked at, because there is nothing to look at here."""
    return Outcome("skip", why)


def warn(seen: str, remedy: str) -> Outcome:
    """Runs work, or some do, and something should be known."""
    return Outcome("warn", seen, remedy)


def fail(seen: str, remedy: str, exit_code: int) -> Outcome:
    """A run would end with `exit_code`."""
    return Outcome("fail", seen, remedy, exit_code)


def failed_by(error: SdrunError) -> Outcome:
    """The failure that an error stands for."""
    return fail(error.message, error.remedy, error.exit_code)


def to_json(checks: Sequence[Check]) -> dict[str, object]:
    """The document, schema sdrun.doctor/v1."""
    return {"schema": SCHEMA, "checks": [check.to_json() for check in checks]}


def worst(checks: Sequence[Check]) -> int:
    """0 when nothing failed, else the exit code of the first failure: checks stand in the order in which they must be mended
    (without a container runtime nothing else helps, without a GPU no driver does)."""
    return next((check.exit_code for check in checks if check.status == "fail"), 0)
