"""What `fleet check` found, schema `sdrun.fleet-check/v1`."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "sdrun.fleet-check/v1"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the lock and what is. `exit_code` 0: good to know, the pins still fit; 4: a GPU without an image
    that is pinned for it; 5: a driver; 7: an image that is gone or altered. `nodes`: whom it concerns, empty for images."""

    id: str
    exit_code: int
    message: str
    remedy: str
    nodes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """One row of the document."""
        return {
            "id": self.id,
            "exit_code": self.exit_code,
            "message": self.message,
            "remedy": self.remedy,
            "nodes": list(self.nodes),
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """All findings, the gravest first."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """The highest of all, 0 where the pins fit."""
        return max((finding.exit_code for finding in self.findings), default=0)

    def to_json(self) -> dict[str, object]:
        """The document."""
        return {
            "schema": SCHEMA,
            "status": "stale" if self.exit_code else "fits",
            "exit_code": self.exit_code,
            "findings": [finding.to_json() for finding in self.findings],
        }
