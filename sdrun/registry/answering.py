"""Whether a registry answers at all, which needs no login and no image."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sdrun.core.reference import Repository
from sdrun.registry import faults
from sdrun.registry.session import transport_to


def status_of(repository: Repository, limit: float, environ: Mapping[str, str] = os.environ) -> int:
    """The status with which the registry answers `HEAD /v2/` (401 asks for a login), within `limit` seconds for each step.
    Raises VerificationFailed (`registry-unreachable`, `registry-failed`); BadConfiguration for certificates that cannot be
    read."""
    transport = transport_to(repository, environ, limit)
    try:
        answer = transport.request("HEAD", "/v2/", {})
        answer.close()
    except faults.Broken as fault:
        raise faults.unreachable(repository.host, fault.why) from None
    finally:
        transport.close()
    return answer.status
