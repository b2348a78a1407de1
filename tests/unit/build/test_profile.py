"""What a build says it took: read from the log of a real one, and from logs that lack it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.build.profile import Profile, Unit, profile_of, read_profile, slowest, to_json

LOG = """\
#9 [engine 3/4] RUN --mount=type=cache,id=sdrun-ccache,target=/ccache ...
#9 12.01 [1/4] Building CUDA object ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/mmq.cu.o
#9 300.1 sdrun unit: # ninja log v6
#9 300.1 sdrun unit: 3\t52503\t1763859000\tggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/mmq.cu.o\tf0e1
#9 300.1 sdrun unit: 4\t3004\t1763859001\tCMakeFiles/stable-diffusion.dir/src/model.cpp.o\t12ab
#9 300.1 sdrun unit: 52503\t53003\t1763859002\tbin/sd-cli\t77
#9 300.2 sdrun cache: Cacheable calls:   3 / 4 (75.00%)
#9 300.2 sdrun cache:   Hits:            2 / 3 (66.67%)
#9 300.2 sdrun cache:     Direct:        1 / 2 (50.00%)
#9 300.2 sdrun cache:   Misses:          1 / 3 (33.33%)
#9 300.2 sdrun times: 0m0.010000s 0m0.020000s
#9 300.2 sdrun times: 1m20.500000s 0m9.500000s
#9 DONE 300.3s
"""


def test_a_log(tmp_path: Path) -> None:
    (tmp_path / "build.log").write_text(LOG, encoding="utf-8")
    found = profile_of(tmp_path / "build.log")
    assert found == Profile(
        (
            Unit("ggml/src/ggml-cuda/mmq.cu", 52.5),
            Unit("src/model.cpp", 3.0),
            Unit("bin/sd-cli", 0.5),
        ),
        90.0,
        2,
        1,
    )
    assert found.unit_seconds == pytest.approx(56.0)
    assert slowest("x", found, 1) == ("x: 1.5 CPU-minutes, 2 of 3 files from the cache\n    52.5 s  ggml/src/ggml-cuda/mmq.cu")
    document = to_json(found)
    assert (document["cpu_seconds"], document["cache_hits"], document["cache_misses"]) == (90.0, 2, 1)


def test_nothing_was_compiled() -> None:
    assert profile_of(None) is None
    assert read_profile(["#9 [engine 3/4] RUN x", "#9 CACHED"]) is None
    assert read_profile([line for line in LOG.splitlines() if "times" not in line]) is None


def test_podman_says_it_without_numbers() -> None:
    plain = [line.partition(" sdrun ")[2] for line in LOG.splitlines() if " sdrun " in line]
    assert read_profile([f"sdrun {line}" for line in plain]) == read_profile(LOG.splitlines())
