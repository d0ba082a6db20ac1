"""The board of a shared store on this machine's own address: read-only, one page, fresh on every reload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from results.errors import StoreError

HOST = "127.0.0.1"
"""Never another: a team reaches it through its own tunnel or proxy, which decides who may."""
NAMES = ("127.0.0.1", "localhost")
"""What a request may call us; another name is a page elsewhere that was pointed at this address."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class Pages:
    """The page, drawn again when the store has changed; a store that cannot be read gives its reason."""

    def __init__(self, fingerprint: Callable[[], str], draw: Callable[[], str]) -> None:
        self._fingerprint, self._draw = fingerprint, draw
        self._lock = Lock()
        self._seen, self._body, self._etag = "", b"", ""

    def current(self) -> tuple[bytes, str]:
        """The page and its ETag; raises StoreError."""
        with self._lock:
            now = self._fingerprint()
            if now != self._seen or not self._body:
                self._body = self._draw().encode("utf-8")
                self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
                self._seen = now
            return self._body, self._etag


def server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """Bound and listening, not serving yet; StoreError when the port is taken or not ours to take."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "weighin"
        sys_version = ""
        timeout = 30

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            name = self.headers.get("Host", HOST).partition(":")[0].lower()
            if name not in NAMES:
                self._send(HTTPStatus.FORBIDDEN, f"this board answers to {' and '.join(NAMES)} only\n".encode(), body)
            elif self.path.partition("?")[0] not in ("/", "/index.html"):
                self._send(HTTPStatus.NOT_FOUND, b"there is one page here: /\n", body)
            else:
                self._page(body)

        def _page(self, body: bool) -> None:
            try:
                html, etag = pages.current()
            except StoreError as error:
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"error: {error}\n".encode(errors="replace"), body)
                return
            if self.headers.get("If-None-Match") == etag:
                self._send(HTTPStatus.NOT_MODIFIED, b"", False, {"ETag": etag})
            else:
                self._send(HTTPStatus.OK, html, body, {"ETag": etag})

        def _send(self, status: HTTPStatus, data: bytes, body: bool, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            headers = HEADERS if status == HTTPStatus.OK else {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}
            for key, text in {**headers, "Content-Length": str(len(data)), **(more or {})}.items():
                if status != HTTPStatus.NOT_MODIFIED or not key.startswith("Content-"):
                    self.send_header(key, text)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a request is not news."""

    try:
        found = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "a port is 0 to 65535"
        raise StoreError(f"--port {port}: {reason}; choose another, or 0 for any free one") from error
    found.daemon_threads = True
    return found
