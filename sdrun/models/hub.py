"""Speaking to a model hub: what a file is there, and its bytes from any place on.

huggingface_hub carries what a hub's ways are: where a file's address is (mirrors by HF_ENDPOINT), who asks (HF_TOKEN or the
saved login), the HTTP session (proxies, certificates), the answer to "what is behind this name" (commit, size, sha256) and its
refusals (gated, no such repository, revision or file). Its downloads are not used, for what they lack: they check no hash; what
arrived is lost when the process is killed between two flushes, or given up after five errors; a file that the hub keeps in Xet
is fetched by another program, in pieces of that program's own cache, past any check made here. The plain address of a file
serves Xet files too, so every byte comes through `Hub.open` below and is checked by sdrun.models.transfer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from sdrun.core.model import DEFAULT_REVISION, HubFile
from sdrun.errors import BadConfiguration, VerificationFailed

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 20.0  # without a byte; HF_HUB_DOWNLOAD_TIMEOUT overrides
_TRUE = ("1", "ON", "YES", "TRUE")  # what huggingface_hub takes for yes
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Later(Exception):
    """Something that may be over the next time. `seconds` is how long the other side asked to wait, None where it did not."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Offer:
    """What a hub says a file is: its `revision` (the commit it was found at), `size` in bytes, `sha256`, and `etag`; None for
    what it does not say."""

    revision: str | None
    size: int | None
    sha256: str | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes on their way. `start` is the place of the first one in the file, `size` that of the whole file if it was said."""

    start: int
    size: int | None
    pieces: Iterator[bytes]


def offline(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has forbidden the network to all users of the hub."""
    return environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


class Hub:
    """One hub, as the environment describes it."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        if not self.endpoint.startswith(("https://", "http://")):
            raise BadConfiguration(
                f"HF_ENDPOINT is {self.endpoint[:80]!r}, which is no address of a hub",
                f"Set it to an address such as {DEFAULT_ENDPOINT}, or unset it.",
                id="bad-config",
            )
        try:
            self._timeout = float(environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or TIMEOUT_S)
        except ValueError:
            self._timeout = TIMEOUT_S
        # Without this the library asks the hub for a list of programs and puts those it finds running into its user agent.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    def look(self, file: HubFile) -> Offer:
        """What the file is. Raises Later, or VerificationFailed where it cannot be had (`model-gated`, `download-failed`)."""
        from huggingface_hub import get_hf_file_metadata

        with self._refusals(file):
            found = get_hf_file_metadata(
                self._address(file), timeout=self._timeout, headers=self._headers(), endpoint=self.endpoint
            )
        etag = found.etag
        sha256 = etag if etag is not None and len(etag) == 64 and not set(etag) - set("0123456789abcdef") else None
        return Offer(found.commit_hash or file.revision, found.size, sha256, etag)

    @contextmanager
    def open(self, file: HubFile, start: int) -> Iterator[Answer]:
        """The file's bytes from `start` on, or from 0 where the server does not serve ranges. Each call asks the hub anew: the
        signed address it redirects to is good for a while only, and the token is not sent on to another host. Raises as
        `look`; a connection that ends too soon raises Later from the pieces."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status

        headers = {**self._headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            self._refusals(file),
            get_session().stream("GET", self._address(file), headers=headers, timeout=self._timeout) as response,
        ):
            hf_raise_for_status(response)
            begin, size = _extent(response.status_code, response.headers)
            yield Answer(begin, size, response.iter_raw())

    def page(self, file: HubFile) -> str:
        """The page of a file's repository, for people."""
        return f"{self.endpoint}{file.page}"

    def _address(self, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(file.repository, file.path, revision=file.revision or DEFAULT_REVISION, endpoint=self.endpoint)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        from sdrun import __version__

        return build_hf_headers(library_name="sdrun", library_version=__version__)

    @contextmanager
    def _refusals(self, file: HubFile) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        transport: Any = HfHubHTTPError.__mro__[1]  # HTTPError of httpx or httpx2, whichever the library was built on
        try:
            yield
        except OfflineModeIsEnabled:
            raise offline_refusal(str(file)) from None
        except HfHubHTTPError as fault:
            self._refused(file, fault)
        except transport as fault:
            if "CERTIFICATE_VERIFY_FAILED" in str(fault):
                raise _failed(
                    f"the certificate of {self.endpoint} cannot be checked: {fault}",
                    "Set SSL_CERT_FILE to your site's certificate bundle.",
                ) from None
            raise Later(_words(fault)) from None

    def _refused(self, file: HubFile, fault: Any) -> NoReturn:
        from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RevisionNotFoundError

        code = fault.response.status_code
        elsewhere = not str(fault.response.url).startswith(f"{self.endpoint}/")
        if code in _PASSING or (elsewhere and code in (401, 403)):  # a signed address has run out; the hub gives a new one
            raise Later(f"the server answered {code}", _seconds(fault.response.headers.get("Retry-After"))) from None
        if isinstance(fault, GatedRepoError):
            raise self.gated(file) from None
        if code == 401 and self._token() and "Invalid" in (fault.response.headers.get("X-Error-Message") or ""):
            raise _failed(
                "the hub does not accept the token", "Make a new one and set HF_TOKEN to it.", "token-refused"
            ) from None
        if isinstance(fault, RemoteEntryNotFoundError):
            raise _failed(f"{file.repository} has no file {file.path}", f"Look at {self.page(file)}.") from None
        if isinstance(fault, RevisionNotFoundError):
            raise _failed(f"{file.repository} has no revision {file.revision}", f"Look at {self.page(file)}.") from None
        if code in (401, 404):
            raise _failed(
                f"the hub has no repository {file.repository}, or it is private",
                f"Look at {self.page(file)}; for a private one set HF_TOKEN.",
            ) from None
        raise _failed(
            f"{self.endpoint} refuses {file.path} of {file.repository} with {code}",
            f"Look at {self.page(file)}; check HF_TOKEN, HF_ENDPOINT and the proxy.",
        ) from None

    def gated(self, file: HubFile) -> VerificationFailed:
        """The error for a repository that is handed out only to accounts that agreed to its terms."""
        page = self.page(file)
        if self._token():
            remedy = f"The account of your token has not been let in: visit {page}, agree there, then run again."
        else:
            remedy = f"Visit {page}, agree to the terms there, then set HF_TOKEN to a token of that account and run again."
        return _failed(
            f"{file.repository} is gated: the hub hands it only to accounts that agreed to its terms", remedy, "model-gated"
        )

    def _token(self) -> str | None:
        from huggingface_hub import get_token

        return get_token()


def offline_refusal(what: str) -> VerificationFailed:
    """The error for something that would have to be fetched while the network is forbidden."""
    return _failed(
        f"{what} is not in the store, and fetching is forbidden (--offline or HF_HUB_OFFLINE)",
        "Allow the network once: sdrun models pull.",
        "model-not-fetched",
    )


def _failed(message: str, remedy: str, id: str = "download-failed") -> VerificationFailed:
    return VerificationFailed(message, remedy, id=id)


def _extent(status: int, headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Where the answer's bytes begin and how long the whole file is, from `Content-Range: bytes 10-99/100` or
    `Content-Length: 100`. An answer that contradicts itself is not believed."""
    length = headers.get("Content-Length", "")
    if status == 200:
        return 0, int(length) if length.isascii() and length.isdigit() else None
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    extent, _, size = rest.partition("/")
    begin = extent.partition("-")[0]
    if status != 206 or unit != "bytes" or not (begin.isascii() and begin.isdigit()):
        raise Later(f"the server answered {status} without saying which part of the file it sends")
    return int(begin), int(size) if size.isascii() and size.isdigit() else None


def _seconds(text: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is left to the usual wait."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _words(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}" if str(fault) else type(fault).__name__
