"""Images that are signed, unsigned, or altered; blobs altered on the registry's disk."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sdrun.core.signing import SignaturePolicy
from sdrun.errors import BadConfiguration, SdrunError, UsageProblem, VerificationFailed
from sdrun.registry import cosign
from sdrun.registry.archive import as_bytes
from sdrun.registry.client import Registry
from sdrun.registry.cosign import Signer
from sdrun.registry.pushing import push
from sdrun.registry.signatures import check_signature, is_signed
from tests.registries.conftest import Place
from tests.registries.front import Fault
from tests.registries.images import packed


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pairs of keys that cosign has made, under the names of the folders."""
    program = shutil.which("cosign")
    if program is None:
        pytest.skip("needs cosign (tools/from-debian.sh)")
    made = {}
    for name in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(name)
        made[name] = folder
        here = Path.cwd()
        os.chdir(folder)
        os.environ["COSIGN_PASSWORD"] = "of the tests"
        try:
            assert cosign.run([program, "generate-key-pair"]).returncode == 0
        finally:
            os.chdir(here)
    return made


@pytest.fixture
def signed(registry: Registry, keys: dict[str, Path], tmp_path: Path) -> str:
    """The digest of an image that our key has signed."""
    digest = push(registry, packed(tmp_path, "cpu")).manifest.digest
    signer(keys, "ours").sign(registry.repository, digest)
    return digest


def signer(keys: dict[str, Path], name: str) -> Signer:
    return Signer(shutil.which("cosign") or "", str(keys[name] / "cosign.key"))


def policy(keys: dict[str, Path], name: str = "ours", not_before: datetime | None = None) -> SignaturePolicy:
    return SignaturePolicy(key=str(keys[name] / "cosign.pub"), not_before=not_before)


def refusal(registry: Registry, digest: str, demanded: SignaturePolicy) -> SdrunError:
    with pytest.raises(VerificationFailed) as caught:
        check_signature(registry, digest, demanded)
    assert caught.value.exit_code == 7
    return caught.value


def test_a_signature_of_the_key_counts(registry: Registry, signed: str, keys: dict[str, Path]) -> None:
    check_signature(registry, signed, policy(keys))
    ours = signer(keys, "ours").public_key()
    assert ours == (keys["ours"] / "cosign.pub").read_bytes()
    assert is_signed(registry, signed, ours)
    program = shutil.which("cosign") or ""
    moment = cosign.check(program, policy(keys), registry.repository, signed)  # cosign itself says so, too
    assert isinstance(moment, datetime)
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 3600


def test_without_a_signature(registry: Registry, keys: dict[str, Path], tmp_path: Path) -> None:
    digest = push(registry, packed(tmp_path, "cpu")).manifest.digest
    assert refusal(registry, digest, policy(keys)).id == "image-unsigned"


def test_another_key_does_not_count(registry: Registry, signed: str, keys: dict[str, Path]) -> None:
    error = refusal(registry, signed, policy(keys, "theirs"))
    assert (error.id, "another key" in error.message) == ("signature-refused", True)
    signer(keys, "theirs").sign(registry.repository, signed)
    check_signature(registry, signed, policy(keys, "theirs"))
    check_signature(registry, signed, policy(keys))  # of several signatures one that counts is enough


def test_the_signature_of_another_image_does_not_count(
    registry: Registry, signed: str, keys: dict[str, Path], tmp_path: Path
) -> None:
    evil = push(registry, packed(tmp_path, "cpu", content="evil")).manifest.digest
    stolen = registry.read_manifest(f"{signed.replace(':', '-')}.sig")
    registry.put_manifest(stolen.body, stolen.media_type, f"{evil.replace(':', '-')}.sig")
    assert "of another image" in refusal(registry, evil, policy(keys)).message


def test_a_date_withdraws_older_signatures(registry: Registry, signed: str, keys: dict[str, Path]) -> None:
    now = datetime.now(UTC)
    check_signature(registry, signed, policy(keys, not_before=now - timedelta(hours=1)))
    assert "was made at" in refusal(registry, signed, policy(keys, not_before=now + timedelta(hours=1))).message


def test_a_signature_without_a_date_where_one_is_demanded(
    registry: Registry, keys: dict[str, Path], tmp_path: Path, place: Place
) -> None:
    digest = push(registry, packed(tmp_path, "cpu")).manifest.digest
    argv = [shutil.which("cosign") or "", "sign", "--yes", "--tlog-upload=false", "--key", str(keys["ours"] / "cosign.key")]
    authority = place.home / ".config/docker/certs.d" / place.repository.host / "ca.crt"
    assert cosign.run([*argv, "--registry-cacert", str(authority), registry.repository.at(digest)]).returncode == 0
    check_signature(registry, digest, policy(keys))
    demanded = policy(keys, not_before=datetime(2020, 1, 1, tzinfo=UTC))
    assert "does not say when" in refusal(registry, digest, demanded).message


@pytest.mark.parametrize(
    "alteration",
    [
        {"layers": []},
        {"layers": "x"},
        {"layers": [1]},
        {"layers": [{"mediaType": "text/plain"}]},
        {"layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "annotations": {}}]},
    ],
)
def test_signatures_that_cannot_be_read(
    registry: Registry, signed: str, keys: dict[str, Path], alteration: dict[str, object], place: Place
) -> None:
    manifest = registry.read_manifest(f"{signed.replace(':', '-')}.sig")
    body = as_bytes({**manifest.document, **alteration})
    place.front.script(Fault("GET", "[.]sig$", times=9, status=200, body=body, headers={"Content-Type": manifest.media_type}))
    assert refusal(registry, signed, policy(keys)).id in ("image-unsigned", "signature-refused")


def test_an_altered_signature_does_not_count(registry: Registry, signed: str, keys: dict[str, Path], place: Place) -> None:
    manifest = registry.read_manifest(f"{signed.replace(':', '-')}.sig")
    document = manifest.document
    mark = document["layers"][0]["annotations"]
    text = mark["dev.cosignproject.cosign/signature"]
    mark["dev.cosignproject.cosign/signature"] = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    answer = {"Content-Type": manifest.media_type}
    place.front.script(Fault("GET", "[.]sig$", times=9, status=200, body=as_bytes(document), headers=answer))
    assert refusal(registry, signed, policy(keys)).id == "signature-refused"


def test_a_signed_text_altered_on_the_disk(registry: Registry, signed: str, keys: dict[str, Path], place: Place) -> None:
    manifest = registry.read_manifest(f"{signed.replace(':', '-')}.sig")
    path = place.server.blob(manifest.document["layers"][0]["digest"])
    path.write_bytes(path.read_bytes().replace(b"cosign", b"cosigm"))
    assert refusal(registry, signed, policy(keys)).id == "hash-mismatch"


def test_what_was_found_good_is_remembered_for_this_policy_alone(
    registry: Registry, signed: str, keys: dict[str, Path], place: Place, tmp_path: Path
) -> None:
    check_signature(registry, signed, policy(keys), tmp_path)
    place.front.seen.clear()
    check_signature(registry, signed, policy(keys), tmp_path)
    assert place.front.seen == []
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(VerificationFailed):
        check_signature(registry, signed, policy(keys, not_before=later), tmp_path)
    with pytest.raises(VerificationFailed):
        check_signature(registry, signed, policy(keys, "theirs"), tmp_path)


def test_keys_that_cannot_be_used(registry: Registry, signed: str, tmp_path: Path) -> None:
    (tmp_path / "no.pub").write_text("no key")
    for name in ("no.pub", "absent.pub"):
        with pytest.raises(BadConfiguration, match=name) as caught:
            check_signature(registry, signed, SignaturePolicy(key=str(tmp_path / name)))
        assert caught.value.id == "bad-config"


def test_an_identity_needs_cosign(registry: Registry, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    demanded = SignaturePolicy(identity="somebody@example.org", issuer="https://issuer.example")
    assert "signature" in refusal(registry, signed, demanded).message  # signed by a key, not by this identity
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageProblem, match="cosign is not on PATH"):
        check_signature(registry, signed, demanded)


def test_without_cosign_a_key_is_enough(
    registry: Registry, signed: str, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    check_signature(registry, signed, policy(keys))


@pytest.mark.parametrize("what", ["layer", "config", "manifest"])
def test_blobs_altered_on_the_disk_are_never_used(registry: Registry, place: Place, tmp_path: Path, what: str) -> None:
    image = packed(tmp_path, "cpu")
    digest = push(registry, image).manifest.digest
    named = {"layer": image.layers[0].digest, "config": image.config.digest, "manifest": digest}[what]
    path = place.server.blob(named)
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes(5))
    read = registry.read_manifest if what == "manifest" else registry.small_blob
    with pytest.raises(VerificationFailed) as caught:
        read(named)
    assert caught.value.id in ("hash-mismatch", "registry-failed", "not-in-registry")
    path.write_bytes(data)


@pytest.mark.parametrize("body", [b"{}", b"", b"not JSON"])
def test_answers_that_a_proxy_has_altered(registry: Registry, place: Place, tmp_path: Path, body: bytes) -> None:
    digest = push(registry, packed(tmp_path, "cpu")).manifest.digest
    place.front.script(Fault("GET", "/manifests/", body=body))
    with pytest.raises(VerificationFailed) as caught:
        registry.read_manifest(digest)
    assert caught.value.id == "hash-mismatch"
