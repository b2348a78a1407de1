"""References to images in a registry, as Docker writes them: `registry.example:5000/team/sdrun:tag@sha256:...`.

The grammar is that of the distribution project (reference.go) and the OCI distribution specification; only sha256 digests exist
here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DOCKER_HUB = "docker.io"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
MAX_PATH = 255


def is_digest(text: str) -> bool:
    """Whether it is `sha256:` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether a registry would take it as a tag."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Repository:
    """Where images lie: `host` with its port, `path` on it. Docker Hub's host is `docker.io`, its unnamed owner `library`."""

    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """The repository named without tag and digest; raises ValueError for anything else."""
        reference = Reference.parse(text)
        if reference.tag is not None or reference.digest is not None:
            raise ValueError(f"must be a repository without tag or digest, not {text[:80]!r}")
        return reference.repository

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, as Docker sees it: such a registry may speak plain HTTP."""
        return _LOOPBACK.fullmatch(self.host) is not None

    def at(self, digest: str) -> str:
        """What to hand to a container runtime: `<repository>@<digest>`."""
        return f"{self}@{digest}"

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by `tag`, by `digest`, by both (then the digest counts), or by neither."""

    repository: Repository
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The value `text` names; the first part is a host if it holds a dot or a colon or is `localhost`, else the image is
        Docker Hub's. Raises ValueError for anything else, also for an address with a scheme."""
        if "://" in text:
            raise ValueError(f"must be HOST[:PORT]/PATH without a scheme, not {text[:80]!r}")
        rest, _, digest = text.partition("@")
        if "@" in text and not is_digest(digest):
            raise ValueError(f"must end with @sha256: and 64 hexadecimal digits, not {text[-80:]!r}")
        name, tag = _split_tag(rest)
        first, slash, path = name.partition("/")
        if not slash or not ("." in first or ":" in first or first == "localhost"):
            first, path = DOCKER_HUB, name if slash else f"library/{name}"
        if first == "index.docker.io":
            first = DOCKER_HUB
        if _HOST.fullmatch(first) is None or _PATH.fullmatch(path) is None or len(path) > MAX_PATH:
            raise ValueError(f"must be HOST[:PORT]/PATH[:TAG][@DIGEST] with a path in lower case, not {text[:80]!r}")
        if tag is not None and not is_tag(tag):
            raise ValueError(f"must have a tag of letters, digits, '.', '_' and '-', not {tag[:80]!r}")
        return cls(Repository(first, path), tag, digest or None)

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    def with_digest(self, digest: str) -> Reference:
        """The same by digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return f"{self.repository}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon behind the last slash begins a tag; any other belongs to the host's port."""
    head, colon, tail = text.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (text, None)
