"""Which signatures an operator demands of images from a registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

SIGNED_AT = "io.sdrun.signed"  # in the signed part of a signature: when it was made, as in 2026-05-06T00:00:00Z


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """`key`: a file with the public key that cosign made, or else `identity` with `issuer`: who signed without a key, as the
    certificate says (`identity` beginning with `^` is a regular expression). `not_before`: signatures made earlier do not
    count, which withdraws what was signed before that moment."""

    key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    not_before: datetime | None = None

    def __post_init__(self) -> None:
        if (self.key is None) == (self.identity is None):
            raise ValueError("must name either a key or an identity")
        if (self.identity is None) != (self.issuer is None):
            raise ValueError("must name the issuer of the identity, and of nothing else")

    def too_old(self, signed: datetime | None) -> str | None:
        """Why a signature made then does not count; None where it does. A signature that does not say when it was made does
        not count where a date is demanded. What the signer wrote is compared with what the operator wrote, and with no clock
        of this machine."""
        if self.not_before is None:
            return None
        if signed is None:
            return f"it does not say when it was made, and {moment_text(self.not_before)} is the earliest to count"
        if signed < self.not_before:
            return f"it was made at {moment_text(signed)}, before {moment_text(self.not_before)}"
        return None


def parse_moment(text: str) -> datetime:
    """`2026-05-06` (the beginning of that day) or `2026-05-06T12:00:00Z`; without a zone it is UTC. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a date such as 2026-05-06 or 2026-05-06T12:00:00Z, not {text[:40]!r}") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def at_midnight(day: date) -> datetime:
    """The beginning of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def moment_text(moment: datetime) -> str:
    """`2026-05-06T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
