"""A registry on this machine that answers what the OCI distribution specification asks of reading: manifests and blobs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fatbins.files import PACKINGS

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(data: bytes) -> str:
    """As registries name it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Shelf:
    """What the registry holds: `manifests` by tag and digest, `blobs` by digest; `asked` are the paths it was asked for."""

    host: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def manifest(self, document: object, media_type: str, tag: str = "") -> str:
        """Stores a manifest; its digest."""
        body = json.dumps(document).encode()
        for name in (digest_of(body), tag):
            if name:
                self.manifests[name] = (media_type, body)
        return digest_of(body)

    def image(self, layers: Sequence[bytes], tag: str = "", packing: str = "gzip") -> str:
        """Stores an image of these layers; its digest."""
        packed = [PACKINGS[packing](data) for data in layers]
        self.blobs |= {digest_of(data): data for data in packed}
        rows = [{"mediaType": "x", "digest": digest_of(data), "size": len(data)} for data in packed]
        return self.manifest({"schemaVersion": 2, "mediaType": IMAGE, "config": {}, "layers": rows}, IMAGE, tag)

    def index(self, rows: Sequence[tuple[str, str]], tag: str, **annotations: str) -> str:
        """Stores a list of (digest, `linux/amd64`) under a tag; its digest."""
        manifests = [
            {
                "digest": digest,
                "size": 1,
                "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
                "annotations": annotations,
            }
            for digest, platform in rows
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX, tag)


@contextmanager
def serving() -> Iterator[Shelf]:
    """A shelf, served on a port of 127.0.0.1."""
    shelf = Shelf()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shelf.asked.append(self.path)
            kind, name = self.path.split("/")[-2:]
            media_type, body = shelf.manifests.get(name, ("", None)) if kind == "manifests" else ("", shelf.blobs.get(name))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("Content-Type", media_type or "application/octet-stream")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Not a word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        shelf.host = f"127.0.0.1:{server.server_port}"
        yield shelf
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
