"""What a request must pass before it is read: whom it addresses, where it comes from, how large it is."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm.serving.errors import ApiError

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
DRAIN_FACTOR = 16
"""A body over the limit is still read (and dropped) up to this many times the limit: a client that is
cut off while it sends sees a broken connection instead of the answer that says why."""


class Guard:
    """Refuses requests that address another host or come from another site's page.

    A web page anywhere can make its visitor's browser send requests to 127.0.0.1. It cannot read the
    answers (no CORS headers), but a name of its own that it points here (DNS rebinding) would make it
    the same origin, so ``Host`` must be a name of ours; and a request sent blindly still costs a
    generation, so an ``Origin``, where there is one, must be ours too.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self.app, self.hosts, self.origins = app, frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self.refusal(Headers(scope=scope))
        answer = refusal.response() if refusal else self.app
        await answer(scope, receive, send_with_headers)

    def refusal(self, headers: Headers) -> ApiError | None:
        """Why a request with these headers is refused; None when it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host_name(host) not in self.hosts:
            return ApiError(
                403, f"this server does not answer to the name {host[:100]!r}; serving.allowed_hosts adds one"
            )
        if origin is None or origin in self.origins or origin.partition("://")[2].lower() == host.lower():
            return None
        return ApiError(
            403, f"pages of {origin[:100]!r} may not use this server; serving.allowed_origins adds them"
        )


def host_name(header: str) -> str:
    """The name in a ``Host`` header, without port and brackets, in lower case; empty when it is not one."""
    try:
        parts = urlsplit(f"//{header}")
        plain = not (parts.path or parts.query or parts.fragment or "@" in header)
        return (parts.hostname or "") if plain else ""
    except ValueError:
        return ""


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        ApiError: 413, it is larger than `limit` bytes.
    """
    chunks: list[bytes] = []
    n_bytes = 0
    declared = request.headers.get("content-length", "")
    over = declared.isdecimal() and int(declared[:18]) > limit
    if not over or int(declared[:18]) <= limit * DRAIN_FACTOR:
        async for chunk in request.stream():
            n_bytes += len(chunk)
            over = over or n_bytes > limit
            if n_bytes > limit * DRAIN_FACTOR:
                break
            if over:
                chunks.clear()
            else:
                chunks.append(chunk)
    if over:
        raise ApiError(
            413,
            f"the body is larger than {limit} bytes; shorten it or raise serving.max_body_bytes",
            code="body_too_large",
        )
    return b"".join(chunks)
