"""A git source: one commit and exactly the submodules that are pinned with it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from sdrun.build.disk import says_disk_full
from sdrun.core.engine import GitSource
from sdrun.errors import RuntimeUnavailable, VerificationFailed

GIT_SECONDS = 1800
HASH_MISMATCH = "hash-mismatch"


def check_out(source: GitSource, tree: Path) -> Path:
    """Makes `tree` a checkout of the pinned commit with its pinned submodules; returns it.

    Raises VerificationFailed: `hash-mismatch` when a submodule is not at its pin, `download-failed` when something cannot be
    had (a commit that the repository does not hold counts as that).
    """
    git(source, ["init", "-q", str(tree)])
    git(source, ["-C", str(tree), "remote", "add", "origin", source.url])
    _fetch_commit(source, tree)
    git(source, ["-C", str(tree), "checkout", "-q", "--detach", source.commit])
    for path, commit in source.submodules.items():
        git(source, ["-C", str(tree), "submodule", "update", "-q", "--init", "--", path])
        found = git(source, ["-C", str(tree / path), "rev-parse", "HEAD"]).strip()
        if found != commit:
            raise VerificationFailed(
                f"submodule {path} of {source} is at {found[:12]}, not at the pinned {commit[:12]}; nothing was kept",
                "Pin the commit that the engine itself names, or another engine commit.",
                id=HASH_MISMATCH,
            )
    return tree


def _fetch_commit(source: GitSource, tree: Path) -> None:
    """One commit without history where the server allows it, else everything."""
    try:
        git(source, ["-C", str(tree), "fetch", "-q", "--depth", "1", "origin", source.commit])
    except VerificationFailed:
        git(source, ["-C", str(tree), "fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"])


def git(source: GitSource, arguments: list[str]) -> str:
    """What `git ARGUMENTS` prints; `source` is only named in messages. Raises VerificationFailed (`download-failed`)."""
    argv = ["git"]
    if source.url.startswith("file://"):
        argv += ["-c", "protocol.file.allow=always"]  # git refuses local submodules unless asked (CVE-2022-39253)
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=False, env=environment
        )
    except FileNotFoundError:
        raise RuntimeUnavailable(
            "this engine comes from git, and git is not installed", "Install git, then run again.", id="git-missing"
        ) from None
    except subprocess.TimeoutExpired:
        raise _failed(source, f"no end after {GIT_SECONDS} seconds") from None
    if done.returncode != 0:
        if says_disk_full(done.stderr):
            raise OSError(errno.ENOSPC, "git met a full disk")  # the caller knows which folder and tells it
        raise _failed(source, done.stderr)
    return done.stdout


def _failed(source: GitSource, detail: str) -> VerificationFailed:
    return VerificationFailed(
        f"{source} could not be fetched",
        "Check the URL, the commit and the network, then run again.",
        id="download-failed",
        detail="\n".join(detail.strip().splitlines()[-12:]) or None,
    )
