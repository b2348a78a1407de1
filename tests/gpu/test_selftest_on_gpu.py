"""`sdrun selftest` on a real GPU: every family of kernels computes what the CPU computes, within the bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sdrun.catalog.selftest import selftest
from tests.gpu.running import Sdrun

pytestmark = pytest.mark.gpu


def test_every_kernel_family_computes_right(
    plan: dict[str, Any], sdrun: Sdrun, record_property: Callable[[str, object], None]
) -> None:
    document = sdrun.answer("selftest")
    assert (document["status"], document["backend"], document["target"]) == ("ok", "cuda", plan["target"])
    assert set(document["cleared"]) == set(selftest().families)
    record_property("device", document["device"])
    record_property(
        "probes", {row["name"]: {key: row[key] for key in ("mean", "worst", "bounds")} for row in document["probes"]}
    )
