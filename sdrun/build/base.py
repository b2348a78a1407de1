"""The image a build starts from: local, else pulled, else bootstrapped from Debian's packages and imported."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdrun.build.client import BuildClient
from sdrun.core.target import Base
from sdrun.errors import RuntimeUnavailable, SdrunError, VerificationFailed
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

Say = Callable[[str], None]
Origin = Literal["local", "pulled", "bootstrapped"]
PULL_SECONDS = 180  # 30 MB: a registry that has not sent them by then is not one to wait for
BOOTSTRAP_SECONDS = 900
BOOTSTRAP_LABEL = "io.sdrun.bootstrapped"
_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base that is in the runtime's store. `reference` is what FROM names, `id` its content id."""

    reference: str
    id: str
    origin: Origin


def bootstrap_tag(base: Base) -> str:
    """The fixed tag of a bootstrapped base, found again by later builds: `sdrun-base:debian-bookworm`."""
    return f"sdrun-base:{base.name}"


def ensure_base(base: Base, runtime: ContainerRuntime, client: BuildClient, say: Say) -> BaseImage:
    """The base image, brought here if need be; says how. Raises RuntimeUnavailable (`base-missing`) where no way is open and
    VerificationFailed (`download-failed`) when the bootstrap itself fails."""
    for reference in (base.image, bootstrap_tag(base)):
        image = runtime.image(reference)
        if image is not None:
            say(f"base image: {reference} is here")
            return BaseImage(reference, image.id, "local")
    say(f"base image: pulling {base.image}")
    why = _pull(base.image, client)
    if why is None:
        return BaseImage(base.image, _required(runtime, base.image).id, "pulled")
    if base.suite is None:
        raise RuntimeUnavailable(
            f"{base.image} cannot be pulled ({why}), and there is no other way to it",
            "Load it by hand (docker load), or choose another toolchain (sdrun build --toolchain NAME).",
            id="base-missing",
        )
    say(f"base image: {base.image} cannot be pulled ({why}); bootstrapping {base.suite} from Debian's packages")
    bootstrap(base, base.suite, client, say)
    return BaseImage(bootstrap_tag(base), _required(runtime, bootstrap_tag(base)).id, "bootstrapped")


def _required(runtime: ContainerRuntime, reference: str) -> LocalImage:
    image = runtime.image(reference)
    if image is None:
        raise RuntimeUnavailable(
            f"{reference} was stored, but {runtime.name} does not find it",
            "Make the command line and the socket speak to the same daemon (DOCKER_HOST, docker context).",
            id="base-missing",
        )
    return image


def _pull(reference: str, client: BuildClient) -> str | None:
    """None when it worked, else why not, in a few words."""
    try:
        done = subprocess.run(
            client.argv("pull", "-q", reference),
            capture_output=True,
            text=True,
            timeout=PULL_SECONDS,
            check=False,
            env=client.environment(),
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PULL_SECONDS} seconds"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1].rpartition(": ")[2][:120]


def bootstrap(base: Base, suite: str, client: BuildClient, say: Say) -> None:
    """Makes a minimal Debian of `suite` with debootstrap, whose packages are checked by Debian's signatures, and imports it."""
    program = _debootstrap(say)
    with tempfile.TemporaryDirectory(prefix="sdrun-base-") as folder:
        root = Path(folder) / "root"
        architecture = _DEBIAN_ARCHITECTURES.get(platform.machine(), platform.machine())
        argv = [program, "--variant=minbase", f"--arch={architecture}", "--force-check-gpg", suite, str(root)]
        _run(argv, "debootstrap", BOOTSTRAP_SECONDS)
        for leftover in (root / "var/cache/apt/archives").glob("*.deb"):
            leftover.unlink()
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        (root / "var/lib/apt/lists").mkdir(parents=True, exist_ok=True)
        archive = Path(folder) / "root.tar"
        _run(
            ["tar", "--numeric-owner", "--sort=name", "--one-file-system", "-C", str(root), "-cf", str(archive), "."],
            "tar",
            300,
        )
        change = f"LABEL {BOOTSTRAP_LABEL}={suite}"
        _run(client.argv("import", "--change", change, str(archive), bootstrap_tag(base)), "import", 300)
    say(f"base image: {bootstrap_tag(base)} bootstrapped")


def _debootstrap(say: Say) -> str:
    remedy = "Load the base by hand (docker load, docker import), or run once as root where debootstrap is installed."
    if os.geteuid() != 0:
        raise RuntimeUnavailable("bootstrapping a base image needs root", remedy, id="base-missing")
    if shutil.which("debootstrap") is None:
        if shutil.which("apt-get") is None:
            raise RuntimeUnavailable("debootstrap is not installed", remedy, id="base-missing")
        say("installing Debian's debootstrap: apt-get install debootstrap")
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update", "-q"], "apt-get update", 300, environment)
        _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "debootstrap"], "apt-get install", 300, environment)
    program = shutil.which("debootstrap")
    if program is None:
        raise RuntimeUnavailable("debootstrap was installed but is not on PATH", "Add /usr/sbin to PATH.", id="base-missing")
    return program


def _run(argv: Sequence[str], what: str, seconds: int, extra: dict[str, str] | None = None) -> None:
    environment = {**os.environ, "LC_ALL": "C", **(extra or {})}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise _failed(what, f"no end after {seconds} seconds") from None
    if done.returncode != 0:
        raise _failed(what, "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:]))


def _failed(what: str, detail: str) -> SdrunError:
    return VerificationFailed(
        f"the base image could not be bootstrapped: {what} failed",
        "Check that Debian's packages can be reached (apt-get update) and that the disk has 1 GiB free, then run again.",
        id="download-failed",
        detail=detail,
    )
