"""What sdrun accepts runs in the real engine, what it refuses fails there. The files have shapes and no weights, so the
pictures are of nothing; the engine looks at shapes alike."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from fabricated import shapes
from fabricated.sparse import Shape, write

from sdrun.catalog.engine_options import engine_options
from sdrun.core.model import ModelFiles
from sdrun.errors import UsageProblem
from sdrun.models import tiny
from sdrun.models.family import check_file_set

pytestmark = pytest.mark.integration

# Made when first asked for; the language models are as narrow as the model tiny wants them.
MAKERS: Mapping[str, Callable[[], Iterable[tuple[str, Shape]]]] = {
    "flux": lambda: shapes.flux(128, 1, 1),
    "clip_l": shapes.clip,
    "clip_g": shapes.clip_g,
    "vae4": lambda: shapes.vae(4, 32, quant=True),
    "vae16": lambda: shapes.vae(16, 32),
    "qwen3": lambda: shapes.llm("qwen3", 32, 1, 64),
    "qwen3-wide": lambda: shapes.llm("qwen3", 64, 1, 64),
    "qwen2.5": lambda: shapes.llm("qwen2.5", 32, 1, 64),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], ModelFiles]:
    """The files of a model, by role, from names in MAKERS and the parts of the model tiny."""
    folder = tmp_path_factory.mktemp("files")
    made = {f"tiny-{role}": path for role, path in tiny.write(folder).items()}

    def find(roles: Mapping[str, str]) -> ModelFiles:
        for name in roles.values():
            if name not in made:
                made[name] = write(folder / f"{name}.gguf", MAKERS[name](), "f16" if name.startswith("vae") else "q4_0")
        return ModelFiles("fabricated", MappingProxyType({role: made[name] for role, name in roles.items()}), None)

    return find


def run(image: str, files: ModelFiles, out: Path) -> int:
    """The engine's exit code: 128 + n after signal n."""
    argv = ["docker", "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}", "--env=GGML_NO_BACKTRACE=1"]
    mounts = {path.parent for path in files.files.values()}
    argv += [*(f"--volume={folder}:{folder}:ro" for folder in mounts), f"--volume={out}:/out", image]
    argv += [word for role, path in files.files.items() for word in (engine_options().roles[role], str(path))]
    argv += ["-p", "a cat", "-W", "64", "-H", "64", "--steps", "1", "--cfg-scale", "1", "-o", "/out/picture.png"]
    return subprocess.run(argv, capture_output=True, check=False, timeout=120).returncode


@pytest.mark.parametrize(
    "roles",
    [
        {"diffusion": "flux", "clip_l": "clip_l", "vae": "vae16"},
        {"diffusion": "tiny-diffusion", "llm": "qwen3", "tae": "tiny-tae"},
        {"diffusion": "tiny-diffusion", "llm": "tiny-llm", "vae": "vae16"},
    ],
)
def test_accepted_sets_run(
    roles: Mapping[str, str], files: Callable[[Mapping[str, str]], ModelFiles], image: str, tmp_path: Path
) -> None:
    found = files(roles)
    assert check_file_set(found).family is not None
    assert run(image, found, tmp_path) == 0
    assert (tmp_path / "picture.png").exists()


@pytest.mark.parametrize(
    ("roles", "id", "code"),
    [
        ({"diffusion": "flux", "vae": "vae16"}, "model-files-incomplete", 139),  # no text encoder: segmentation fault
        ({"diffusion": "flux", "clip_l": "clip_l"}, "model-files-incomplete", 1),
        ({"diffusion": "flux", "clip_l": "clip_g", "vae": "vae16"}, "model-files-mismatched", 1),
        ({"diffusion": "flux", "clip_l": "clip_l", "vae": "vae4"}, "model-files-mismatched", 1),
        ({"diffusion": "tiny-diffusion", "llm": "tiny-llm"}, "model-files-incomplete", 1),
        ({"diffusion": "tiny-diffusion", "llm": "qwen2.5", "tae": "tiny-tae"}, "model-files-mismatched", 1),
        (
            {"diffusion": "tiny-diffusion", "llm": "qwen3-wide", "tae": "tiny-tae"},
            "model-files-mismatched",
            139,
        ),  # an assertion; 139 as process 1
        ({"model": "clip_l"}, "model-files-mismatched", 1),
    ],
)
def test_refused_sets_fail(
    roles: Mapping[str, str],
    id: str,
    code: int,
    files: Callable[[Mapping[str, str]], ModelFiles],
    image: str,
    tmp_path: Path,
) -> None:
    found = files(roles)
    with pytest.raises(UsageProblem) as caught:
        check_file_set(found)
    assert caught.value.id == id
    assert run(image, found, tmp_path) == code
    assert not (tmp_path / "picture.png").exists()
