"""Folders with whole images that publishers and proofs left behind when they were killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sdrun.build import publishing


def test_what_killed_ones_left_is_swept_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "contexts"
    for name in ("publish-old", "proof-old", "proof-new", "sdcpp-1-cpu-old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "image.tar").write_bytes(b"x")
        if name.endswith("old"):
            then = time.time() - publishing._LEFT_OVER_S - 60
            os.utime(folder / name, (then, then))
    assert publishing._swept(folder) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["proof-new", "sdcpp-1-cpu-old"]
