"""Newer pins: the engine's newest release tag and the digests that the base images' tags name today, written into images/.

Comments and order are kept: lines are replaced, and what comes out is read as a catalogue before it replaces anything. Tags of
published images are never moved, so an engine whose bases changed gets another name (`.2` behind it), and with it tags anew.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, copytree

from sdrun.build.gitsource import git
from sdrun.core.engine import Engine, GitSource
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry.client import Registry

_RELEASE = re.compile(r"([0-9a-f]{40})\trefs/tags/(master-([0-9]+)-([0-9a-f]{7,40}))")
_SUFFIX = re.compile(r"(.*?)(?:\.([0-9]+))?")
FILES = ("engines.yaml", "toolchains.yaml", "targets.yaml")


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the engine: its tag, its commit and that one's date (YYYY-MM-DD), and the submodules pinned with it."""

    tag: str
    commit: str
    date: str
    submodules: Mapping[str, str]

    @property
    def engine(self) -> str:
        """The name of its row."""
        return f"sdcpp-{self.commit[:7]}"


@dataclass(frozen=True, slots=True)
class Change:
    """One pin that was renewed, for people."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}"


def newest_release(url: str) -> tuple[str, str] | None:
    """Tag and commit of the newest `master-COUNT-COMMIT` of the repository; None without one. Raises VerificationFailed
    (`download-failed`)."""
    listed = git(GitSource(url, "", {}), ["ls-remote", "--tags", "--refs", url, "refs/tags/master-*"])
    found = [match for match in _RELEASE.finditer(listed) if match[1].startswith(match[4])]
    newest = max(found, key=lambda match: int(match[3]), default=None)
    return None if newest is None else (newest[2], newest[1])


def release(url: str, tag: str, commit: str, submodules: Mapping[str, str]) -> Release:
    """What has to be pinned with that commit: its date, and where it has the submodules named (their paths count)."""
    source = GitSource(url, commit, {})
    with tempfile.TemporaryDirectory(prefix="sdrun-") as folder:
        git(source, ["init", "-q", "--bare", folder])
        git(source, ["-C", folder, "fetch", "-q", "--depth", "1", "--filter=blob:none", url, commit])
        date = git(source, ["-C", folder, "show", "-s", "--format=%cs", commit]).strip()
        tree = git(source, ["-C", folder, "ls-tree", commit, "--", *submodules])
    at = {
        path: words.split()[2] for words, _, path in (line.partition("\t") for line in tree.splitlines()) if " commit " in words
    }
    if missing := set(submodules) - set(at):
        raise VerificationFailed(
            f"{tag} has no submodule {', '.join(sorted(missing))}",
            "Look at what upstream changed, and write the engine's row by hand.",
            id="download-failed",
        )
    return Release(tag, commit, date, at)


def newest_digest(image: str) -> str:
    """The digest that the image's tag names in its registry now. Raises what a registry raises, VerificationFailed
    (`download-failed`) where it has no such tag."""
    reference = Reference.parse(image)
    registry = Registry(reference.repository)
    try:
        digest = registry.digest_of(reference.tag or "latest")
    finally:
        registry.close()
    if digest is None:
        raise VerificationFailed(f"{image} is not in its registry", "Correct its row in toolchains.yaml.", id="download-failed")
    return digest


def bump(images: Path, say: Callable[[str], None]) -> list[Change]:
    """Renews the pins of the folder `images`; what was changed. Raises BadConfiguration where the result is no catalogue;
    nothing is written then."""
    from sdrun.catalog.engines import engines
    from sdrun.catalog.toolchains import toolchains

    text = {name: (images / name).read_text(encoding="utf-8") for name in FILES}
    engine = next(iter(engines(images / "engines.yaml").values()))
    changes: list[Change] = []
    name = engine.name
    newest = newest_release(engine.url)
    if newest is None:
        say(f"{engine.url} has no release tags; the engine stays as it is")
    elif newest[0] != engine.version:
        known = engine.source.submodules if isinstance(engine.source, GitSource) else {"ggml": ""}
        found = release(engine.url, *newest, known)
        name = found.engine
        text["engines.yaml"] = with_engine(text["engines.yaml"], engine, found)
        changes.append(Change("engine", engine.version, found.tag))
    for image in sorted({base.image for base in toolchains(images / "toolchains.yaml").bases.values()}):
        tag, _, old = image.partition("@")
        new = newest_digest(tag)
        if new != old:
            text["toolchains.yaml"] = with_base(text["toolchains.yaml"], image, f"{tag}@{new}")
            changes.append(Change(tag, old[:19] or "no digest", new[:19]))
    if changes and name == engine.name:
        name = following(engine.name)
        text["engines.yaml"] = _replaced(text["engines.yaml"], rf"^(  - name: ){re.escape(engine.name)}$", rf"\g<1>{name}")
        changes.append(Change("the engine's name, for tags of their own", engine.name, name))
    if changes:
        text["targets.yaml"] = _replaced(text["targets.yaml"], rf"^(engine: ){re.escape(engine.name)}$", rf"\g<1>{name}")
        _write(images, text, engine.name, name)
    return changes


def following(name: str) -> str:
    """The next name of the same engine.

    >>> following("sdcpp-90e87bc"), following("sdcpp-90e87bc.2")
    ('sdcpp-90e87bc.2', 'sdcpp-90e87bc.3')
    """
    match = _SUFFIX.fullmatch(name)
    assert match is not None  # the pattern takes any line
    return f"{match[1]}.{int(match[2] or 1) + 1}"


def with_base(text: str, old: str, new: str) -> str:
    """toolchains.yaml with another image for that base."""
    return _replaced(text, rf"^(\s+image: ){re.escape(old)}( .*)?$", rf"\g<1>{new}\g<2>")


def with_engine(text: str, engine: Engine, found: Release) -> str:
    """engines.yaml with that release in the engine's row: fetched by git from now on, its submodules pinned with it."""
    submodules = "".join(f"        {path}: {commit}\n" for path, commit in found.submodules.items())
    source = (
        f"    source:\n      kind: git\n      url: {engine.url}\n      commit: {found.commit}\n      submodules:\n{submodules}"
    )
    for pattern, new in (
        (rf"^(  - name: ){re.escape(engine.name)}$", rf"\g<1>{found.engine}"),
        (rf"^(    version: ){re.escape(engine.version)}$", rf"\g<1>{found.tag}"),
        (rf'^(    revision: )"?{engine.revision}"?$', rf'\g<1>"{found.commit}"'),
        (r'^(    date: )"[0-9-]+"$', rf'\g<1>"{found.date}"'),
        (r"^    source:\n(?:      .*\n)+", source),
        (rf"^(      SDCPP_BUILD_VERSION: ){re.escape(engine.version)}$", rf"\g<1>{found.tag}"),
        (r'^(      SDCPP_BUILD_COMMIT: )"[0-9a-f]+"$', rf'\g<1>"{found.commit[:7]}"'),
    ):
        text = _replaced(text, pattern, new)
    return text


def _replaced(text: str, pattern: str, new: str) -> str:
    replaced, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    if count != 1:
        raise BadConfiguration(
            f"images/ holds {count} lines for {pattern[:60]!r}, where one is to be renewed",
            "Write the new pin by hand.",
            id="bad-catalogue",
        )
    return replaced


def _write(images: Path, text: Mapping[str, str], old: str, new: str) -> None:
    """All files or none, and only what can be read. The patches of an engine lie in a folder of its name; whether they fit the
    new source is for a build to say."""
    from sdrun.catalog.targets import targets

    patches = images / "patches"
    with tempfile.TemporaryDirectory(dir=images, prefix=".bump-") as folder:
        trial = Path(folder)
        for name, content in text.items():
            copyfile(images / name, trial / name)  # its permissions
            (trial / name).write_text(content, encoding="utf-8", newline="\n")
        if (patches / old).is_dir():
            copytree(patches / old, trial / "patches" / new)
        targets(trial / "targets.yaml", trial / "engines.yaml", trial / "toolchains.yaml")
        for name in text:
            (trial / name).replace(images / name)
        if (patches / old).is_dir():
            (patches / old).rename(patches / new)
