"""References to images in a registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.core.reference import Reference, Repository, is_digest, is_tag

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("registry.example/team/sdrun", "registry.example", "team/sdrun", None, None),
        ("registry.example:5000/sdrun:1.0", "registry.example:5000", "sdrun", "1.0", None),
        (f"localhost/sdrun@{DIGEST}", "localhost", "sdrun", None, DIGEST),
        (f"127.0.0.1:5443/a/b-c__d.e:x@{DIGEST}", "127.0.0.1:5443", "a/b-c__d.e", "x", DIGEST),
        ("[::1]:5000/sdrun:x", "[::1]:5000", "sdrun", "x", None),
        ("debian", "docker.io", "library/debian", None, None),
        ("debian:12", "docker.io", "library/debian", "12", None),
        ("team/sdrun", "docker.io", "team/sdrun", None, None),
        ("index.docker.io/team/sdrun", "docker.io", "team/sdrun", None, None),
    ],
)
def test_what_docker_would_understand(text: str, host: str, path: str, tag: str | None, digest: str | None) -> None:
    reference = Reference.parse(text)
    assert (reference.repository.host, reference.repository.path) == (host, path)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://registry.example/sdrun", "without a scheme"),
        ("registry.example/Team/sdrun", "lower case"),
        ("registry.example/", "lower case"),
        ("", "lower case"),
        ("-x.example/sdrun", "lower case"),
        ("registry.example/a//b", "lower case"),
        (f"registry.example/{'a' * 256}", "lower case"),
        ("registry.example/sdrun:", "a tag of letters"),
        ("registry.example/sdrun:a b", "a tag of letters"),
        ("registry.example/sdrun@sha256:12", "64 hexadecimal digits"),
        ("registry.example/sdrun@", "64 hexadecimal digits"),
        (f"registry.example/sdrun@{DIGEST}\n", "64 hexadecimal digits"),
        ("registry.example/sdrun\n", "lower case"),
        ("../etc/passwd", "lower case"),
    ],
)
def test_what_is_no_reference(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Reference.parse(text)


def test_what_is_asked_for() -> None:
    plain = Reference.parse("registry.example/sdrun")
    assert plain.wanted == "latest"
    assert Reference.parse("registry.example/sdrun:x").wanted == "x"
    assert Reference.parse(f"registry.example/sdrun:x@{DIGEST}").wanted == DIGEST
    assert plain.with_digest(DIGEST).wanted == DIGEST


def test_a_repository_alone() -> None:
    repository = Repository.parse("registry.example/team/sdrun")
    assert str(repository) == "registry.example/team/sdrun"
    assert repository.at(DIGEST) == f"registry.example/team/sdrun@{DIGEST}"
    for more in ("registry.example/sdrun:x", f"registry.example/sdrun@{DIGEST}"):
        with pytest.raises(ValueError, match="without tag or digest"):
            Repository.parse(more)


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5443", "127.9.9.9", "[::1]:5000"])
def test_this_machine(host: str) -> None:
    assert Repository.parse(f"{host}/sdrun").is_loopback or host == "localhost"
    assert Repository(host, "x").is_loopback


@pytest.mark.parametrize("host", ["localhost.example", "127.0.0.1.example", "10.0.0.1:5000", "registry.example"])
def test_other_machines(host: str) -> None:
    assert not Repository(host, "x").is_loopback


def test_digests_and_tags() -> None:
    assert is_digest(DIGEST)
    assert not any(map(is_digest, ("", DIGEST[:-1], DIGEST.upper(), DIGEST + "\n", "sha512:" + "a" * 64)))
    assert is_tag("sdcpp-90e87bc-cu124-sm89")
    assert not any(map(is_tag, ("", ".x", "-x", "a/b", "a" * 129, "a\n")))


@given(st.text(max_size=60))
def test_any_text_is_a_reference_that_round_trips_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ValueError:
        return
    assert Reference.parse(str(reference)) == reference
