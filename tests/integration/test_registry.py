"""From a build to a picture through a real registry: publish, resolve, pull by digest, run; and nothing wrong is ever run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdrun.catalog.runtimes import zstd_layers_from
from sdrun.core.layers import reads_zstd
from sdrun.runtime.protocol import ContainerRuntime, LocalImage
from tests.registries.server import Authority, RegistryProcess, lay_down

pytestmark = pytest.mark.integration
QUICK = ("-m", "tiny", "--allow-cpu", "--steps", "1", "-W", "64", "-H", "64", "-p", "x")


@dataclass(frozen=True)
class Published:
    """A registry in which the cpu image was published, signed by the key in `keys`; `home` leads to it."""

    registry: str
    server: RegistryProcess
    keys: Path
    home: Path
    document: dict[str, object]

    @property
    def digest(self) -> str:
        """Of the published image."""
        return str(self._row["digest"])

    @property
    def _row(self) -> dict[str, object]:
        images = self.document["images"]
        assert isinstance(images, list)
        row = images[0]
        assert isinstance(row, dict)
        return row

    @property
    def forms(self) -> tuple[str, str]:
        """Its references: layers packed with zstd, and with gzip."""
        return str(self._row["image"]), str(self._row["gzip"])

    def readable(self, runtime: ContainerRuntime) -> str:
        """The form that the runtime of this machine reads."""
        return self.forms[0] if reads_zstd(runtime.facts(), zstd_layers_from()) else self.forms[1]

    def environ(self, work: Path) -> dict[str, str]:
        """For a run of its own cache and logs; models are shared."""
        models = os.environ.get("SDRUN_MODELS_DIR") or str(_user_cache() / "models")
        return {
            **os.environ,
            "HOME": str(self.home),
            "SDRUN_REGISTRY": self.registry,
            "SDRUN_RUNTIME": "docker",
            "SDRUN_CACHE_DIR": str(work / "cache"),
            "SDRUN_MODELS_DIR": models,
            "SDRUN_STATE_DIR": str(work / "state"),
            "COSIGN_PASSWORD": "of the tests",
        }


def _user_cache() -> Path:
    from sdrun.resources import cache_root

    return cache_root()


def sdrun(*words: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sdrun", *words]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture(scope="module")
def published(cpu_image: LocalImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    cosign = shutil.which("cosign")
    if cosign is None:
        pytest.skip("needs cosign (tools/from-debian.sh)")
    folder = tmp_path_factory.mktemp("published")
    authority = Authority(folder / "tls")
    server = RegistryProcess(folder / "registry", authority.issue("registry"))
    server.start()
    home, keys = folder / "home", folder / "keys"
    home.mkdir()
    keys.mkdir()
    lay_down(home, server.host, authority.certificate)
    made = Published(f"{server.host}/team/sdrun", server, keys, home, {})
    env = made.environ(folder)
    subprocess.run([cosign, "generate-key-pair"], cwd=keys, env=env, check=True, capture_output=True)
    words = ("publish", "cpu", "--no-build", "--key", str(keys / "cosign.key"), "--json")
    done = sdrun(*words, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    yield Published(made.registry, server, keys, home, json.loads(done.stdout))
    server.stop()


@pytest.fixture
def forgotten(published: Published, docker_runtime: ContainerRuntime) -> Iterator[None]:
    """Docker does not know the published reference, before and after."""
    commands = [["docker", "rmi", "--no-prune", reference] for reference in published.forms]
    for argv in commands:
        subprocess.run(argv, capture_output=True, check=False)
    yield
    for argv in commands:
        subprocess.run(argv, capture_output=True, check=False)


@pytest.mark.usefixtures("forgotten")
def test_a_picture_from_a_published_image(
    published: Published, work: Path, cpu_image: LocalImage, docker_runtime: ContainerRuntime
) -> None:
    env = published.environ(work)
    begun = len(published.server.requests())
    resolved = sdrun("resolve", "--allow-cpu", env=env | {"SDRUN_HOST_FACTS": str(no_gpu(work))}, cwd=work)
    assert resolved.stdout == f"{published.registry}@{published.digest}\n", resolved.stderr
    asked = published.server.requests()[begun:]
    assert [(one.method, one.path, one.status) for one in asked] == [("GET", "/v2/team/sdrun/manifests/latest", 200)]
    (work / "config.yaml").write_text(f"verify:\n  key: {published.keys / 'cosign.pub'}\n  not_before: 2026-01-01\n")
    done = sdrun("--config", "config.yaml", "generate", *QUICK, "-o", "x.png", env=env, cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / "x.png").is_file()
    assert f"pulling {published.readable(docker_runtime)}" in done.stderr
    image = docker_runtime.image(published.readable(docker_runtime))
    assert image is not None
    assert image.id == cpu_image.id  # what runs is what was proven


def no_gpu(work: Path) -> Path:
    facts = {"schema": "sdrun.host/v1", "platform": "linux/amd64", "driver_version": None, "cuda_driver": None, "gpus": []}
    path = work / "host.json"
    runtime = {"name": "docker", "version": "28.5.2", "cdi_devices": [], "nvidia_runtime": False}
    path.write_text(json.dumps(facts | {"wsl": False, "tegra": None, "runtime": runtime, "probe": "none"}))
    return path


@pytest.mark.usefixtures("forgotten")
def test_an_image_that_another_key_signed_is_not_pulled(published: Published, work: Path) -> None:
    env = published.environ(work)
    other = work / "other"
    other.mkdir()
    subprocess.run([shutil.which("cosign") or "", "generate-key-pair"], cwd=other, env=env, check=True, capture_output=True)
    (work / "config.yaml").write_text("verify: {key: other/cosign.pub}\n")
    begun = len(published.server.requests())
    done = sdrun("--config", "config.yaml", "generate", *QUICK, "-o", "x.png", "--json", env=env, cwd=work)
    assert done.returncode == 7
    assert json.loads(done.stdout)["id"] == "signature-refused"
    assert not (work / "x.png").exists()
    layers = [one for one in published.server.requests()[begun:] if "/blobs/" in one.path and one.size > 100_000]
    assert layers == []


@pytest.mark.usefixtures("forgotten")
def test_an_index_that_lies_is_found_out(published: Published, work: Path) -> None:
    """The index says that the cpu image holds code for this GPU; its own labels say otherwise."""
    env = published.environ(work)
    script = (
        "from sdrun.registry.client import open_registry\n"
        "from sdrun.registry.archive import as_bytes\n"
        f"registry, _ = open_registry({published.registry!r})\n"
        "document = registry.read_manifest('latest').document\n"
        "document['manifests'][0]['annotations']['io.sdrun.ptx'] = ''\n"
        "document['manifests'][0]['annotations']['io.sdrun.target'] = 'cu124-sm90'\n"
        "document['manifests'][0]['annotations'].update({'io.sdrun.toolkit': '12.4', 'io.sdrun.sass': '90'})\n"
        "registry.put_manifest(as_bytes(document), document['mediaType'], 'lying')\n"
    )
    subprocess.run([sys.executable, "-c", script], env=env, check=True, timeout=60)
    gpu = {"index": 0, "uuid": "GPU-1", "name": "H100", "compute_capability": "9.0", "memory_mib": 81559, "mig": []}
    facts = json.loads(no_gpu(work).read_text()) | {"driver_version": "580.159.04", "cuda_driver": "13.0", "gpus": [gpu]}
    facts["runtime"]["nvidia_runtime"] = True
    (work / "host.json").write_text(json.dumps(facts))
    env |= {"SDRUN_REGISTRY": f"{published.registry}:lying", "SDRUN_HOST_FACTS": str(work / "host.json")}
    done = sdrun("generate", *QUICK, "-o", "x.png", "--json", env=env, cwd=work)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["id"] == "image-differs"
    assert not (work / "x.png").exists()


def stated(reference: str, env: dict[str, str]) -> list[str]:
    """The kinds of statements about an image that name it by its own digest."""
    script = (
        "import json, sys\n"
        "from sdrun.registry.client import open_registry\n"
        "from sdrun.registry.referrers import referrers\n"
        "repository, _, digest = sys.argv[1].partition('@')\n"
        "registry, _ = open_registry(repository)\n"
        "for row in referrers(registry, digest):\n"
        "    (layer,) = registry.read_manifest(row['digest']).document['layers']\n"
        "    if digest.removeprefix('sha256:') in json.dumps(registry.session.parsed(\n"
        "        registry.small_blob(layer['digest']), 'a statement')):\n"
        "        print(row['artifactType'])\n"
    )
    argv = [sys.executable, "-c", script, reference]
    return sorted(subprocess.run(argv, env=env, check=True, timeout=60, capture_output=True, text=True).stdout.split())


def test_steps_of_a_pipeline(published: Published, work: Path) -> None:
    """By digest in one job, tags and index in another; the same again changes nothing."""
    env = published.environ(work) | {"SDRUN_REGISTRY": f"{published.server.host}/team/pipeline"}
    dry = sdrun("publish", "cpu", "--dry-run", env=env, cwd=work)
    assert dry.stdout == "sdcpp-90e87bc-cpu: would be pushed and tagged\n", dry.stderr
    pushed = sdrun("publish", "cpu", "--no-build", "--by-digest", "--json", env=env, cwd=work)
    assert pushed.returncode == 0, pushed.stderr
    (work / "cpu.json").write_text(pushed.stdout)
    (image,) = json.loads(pushed.stdout)["images"]
    for form in (image["image"], image["gzip"]):
        assert stated(form, env) == ["application/spdx+json", "application/vnd.in-toto+json"]
    assert sdrun("index", env=env, cwd=work).returncode == 7  # no index yet
    done = sdrun("publish", "--from", "cpu.json", env=env, cwd=work)
    assert done.returncode == 0, done.stderr
    again = sdrun("publish", "--from", "cpu.json", "--json", env=env, cwd=work)
    document = json.loads(again.stdout)
    assert (document["images"][0]["tagged"], document["indexes"][0]["changed"]) == (False, False)
    listed = sdrun("index", "--json", env=env, cwd=work)
    (row,) = json.loads(listed.stdout)["images"]
    assert (row["target"], row["image"]) == ("cpu", done.stdout.strip())
    assert 5_000_000 < row["size_bytes"] < row["gzip_bytes"]
    skipped = sdrun("publish", "cpu", "--skip-existing", env=env | {"SDRUN_CACHE_DIR": str(_user_cache())}, cwd=work)
    assert skipped.returncode == 0, skipped.stderr
    assert "published already by the same recipe" in skipped.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "there is none of them"),
        (("cpu", "--index-only"), "SELECTOR and --index-only"),
        (("cpu", "--registry", "https://r.example/x"), "without a scheme"),
        (("cpu", "--registry", "r.example/x:tag"), "names a repository"),
        (("cpu", "--registry", "r.example/x", "--compression", "xz"), "both, zstd or gzip"),
        (("cpu", "--registry", "r.example/x", "--key", "k", "--keyless"), "exclude each other"),
    ],
)
def test_what_cannot_be_asked_for(words: tuple[str, ...], text: str, work: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "SDRUN_REGISTRY"}
    done = sdrun("publish", *words, env=environ, cwd=work)
    assert done.returncode == 2
    assert text in done.stderr
