"""A web server of this machine, in place of the network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Site:
    """What the server has, by path, and which paths were asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.claims_bytes: int | None = None
        self.address = ""


@pytest.fixture
def site() -> Iterator[Site]:
    content = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content.asked.append(self.path)
            page = content.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            length = len(page or b"") if content.claims_bytes is None else content.claims_bytes
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    content.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield content
    server.shutdown()
    server.server_close()
    thread.join()
