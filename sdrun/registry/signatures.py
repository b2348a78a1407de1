"""Whether an image is signed as a policy demands.

With a key, cosign's signatures are checked here, by the library `cryptography`: a host that runs images need not have cosign.
The form is cosign's "simple signing" (sigstore/cosign, specs/SIGNATURE_SPEC.md): under the tag `sha256-<hex>.sig` a manifest
whose layers are the signed texts, each with its signature as annotation. Keyless signatures, and the bundles that newer
versions of cosign write, are left to cosign itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sdrun.core.signing import SIGNED_AT, SignaturePolicy, parse_moment
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry import cosign
from sdrun.registry.client import Registry
from sdrun.resources import at_home

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
UNSIGNED, REFUSED = "image-unsigned", "signature-refused"
_MAX_SIGNATURES = 100


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`counts`, or `why` not."""

    counts: bool
    why: str = ""


def check_signature(registry: Registry, digest: str, policy: SignaturePolicy, cache: Path | None = None) -> None:
    """Returns where a signature of the image counts. Raises VerificationFailed: `image-unsigned` where there is none at all,
    `signature-refused` where none counts; BadConfiguration (`bad-config`) for a key that cannot be read; UsageProblem
    (`cosign-missing`). What was found good once under the same policy is remembered in `cache`."""
    key = _key_bytes(policy)
    remembered = _place(cache, digest, policy, key)
    if remembered is not None and remembered.is_file():
        return
    verdict = _by_key(registry, digest, policy, key) if key is not None else _by_identity(registry, digest, policy)
    if not verdict.counts:
        raise VerificationFailed(
            f"{registry.repository}@{digest[:19]}... has no signature that counts: {verdict.why}",
            "Do not run it. Have it signed by whom `verify:` names, or correct that setting.",
            id=UNSIGNED if verdict.why == _NONE else REFUSED,
        )
    if remembered is not None:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.touch()


_NONE = "it has none"


def is_signed(registry: Registry, digest: str, key: bytes) -> bool:
    """Whether the key has signed it already, whenever that was."""
    return _by_key(registry, digest, SignaturePolicy(key="-"), key).counts


def _key_bytes(policy: SignaturePolicy) -> bytes | None:
    if policy.key is None:
        return None
    try:
        return at_home(policy.key).read_bytes()
    except OSError as fault:
        raise _bad_key(policy.key, fault.strerror or str(fault)) from None


def _bad_key(name: str, why: str) -> BadConfiguration:
    return BadConfiguration(
        f"the key {name} of `verify:` cannot be used: {why}",
        "Name the file cosign.pub that belongs to the signer.",
        id="bad-config",
    )


def _place(cache: Path | None, digest: str, policy: SignaturePolicy, key: bytes | None) -> Path | None:
    """One name for each image, key (by its content) or identity, and date."""
    if cache is None:
        return None
    words = repr((digest, key or (policy.identity, policy.issuer), policy.not_before))
    return cache / "signatures" / hashlib.sha256(words.encode()).hexdigest()


def _by_identity(registry: Registry, digest: str, policy: SignaturePolicy) -> _Verdict:
    program = cosign.find_program("`verify:` names an identity, which it alone can check")
    return _judged(cosign.check(program, policy, registry.repository, digest), policy)


def _by_key(registry: Registry, digest: str, policy: SignaturePolicy, key: bytes) -> _Verdict:
    manifest = registry.find_manifest(f"{digest.replace(':', '-')}.sig")
    if manifest is None:
        program = shutil.which("cosign")
        if program is None or policy.key in (None, "-"):
            return _Verdict(False, _NONE)
        found = _judged(cosign.check(program, policy, registry.repository, digest), policy)
        return found if found.counts else _Verdict(False, _NONE)
    public = _public_key(key, policy.key or "")
    whys: list[str] = []
    layers = manifest.document.get("layers")
    for layer in (layers if isinstance(layers, list) else [])[:_MAX_SIGNATURES]:
        try:
            signed = _signed_text(registry, layer, public)
            verdict = _judged(_moment(signed, digest), policy)
        except ValueError as fault:
            verdict = _Verdict(False, str(fault))
        if verdict.counts:
            return verdict
        whys.append(verdict.why)
    return _Verdict(False, whys[0] if whys else _NONE)


def _judged(found: datetime | str | None, policy: SignaturePolicy) -> _Verdict:
    if isinstance(found, str):
        return _Verdict(False, found)
    why = policy.too_old(found)
    return _Verdict(why is None, why or "")


def _signed_text(registry: Registry, layer: Any, public: Any) -> bytes:
    """The text of one signature whose signature is the key's. Raises ValueError saying what is wrong."""
    try:
        if layer["mediaType"] != SIMPLE_SIGNING:
            raise ValueError(f"a signature of the form {str(layer['mediaType'])[:60]}")
        signature = base64.b64decode(str(layer["annotations"][_SIGNATURE]), validate=True)
        digest = str(layer["digest"])
    except (KeyError, TypeError, binascii.Error):
        raise ValueError("a signature that cannot be read") from None
    text = registry.small_blob(digest)
    if not _made_by(public, signature, text):
        raise ValueError("it was signed with another key, or altered")
    return text


def _moment(text: bytes, digest: str) -> datetime | None:
    """When this image was signed, None where that is not said. Raises ValueError where the text is about something else."""
    try:
        document = json.loads(text)
        critical, optional = document["critical"], document.get("optional") or {}
        about, kind = critical["image"]["docker-manifest-digest"], critical["type"]
        said = optional.get(SIGNED_AT)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("a signed text that cannot be read") from None
    if about != digest or kind != _TYPE:
        raise ValueError("its signature is of another image")
    return parse_moment(said) if isinstance(said, str) else None


def _public_key(pem: bytes, name: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem)
    except (ValueError, TypeError) as fault:
        raise _bad_key(name, str(fault)) from None


def _made_by(public: Any, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, text, ec.ECDSA(SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, text, padding.PKCS1v15(), SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, text)
        else:
            raise _bad_key("", "it is of a kind that cosign does not sign with")
    except InvalidSignature:
        return False
    return True
