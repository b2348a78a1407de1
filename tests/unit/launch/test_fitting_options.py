"""What sdrun found to be needed reaches the engine, before the user's own words."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from sdrun.core.model import ModelFiles
from sdrun.launch.engine_args import inside
from sdrun.launch.request import Request


def test_the_order_of_options(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    model = ModelFiles("a", MappingProxyType({"diffusion": path}), None, engine_args=("--flow-shift", "3"))
    request = Request("a", "a fox", engine_args=("--flow-shift", "1"))
    words = inside(request, model, tmp_path, "a.png", ("--vae-tiling",)).arguments
    assert words[-5:] == ("--flow-shift", "3", "--vae-tiling", "--flow-shift", "1")
