"""What the server counts, in Prometheus' form: requests, tokens, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One server's counters, apart from any other's in the same process.

    Args:
        open_requests: Tells how many requests run or wait at the moment.
    """

    def __init__(self, open_requests: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llm_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self.tokens = Counter(
            "llm_tokens", "Tokens read (prompt) and generated (completion).", ["kind"], registry=self.registry
        )
        self.seconds = Histogram(
            "llm_request_seconds",
            "Time from a request to the last byte of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        gauge = Gauge("llm_open_requests", "Generations that run or wait.", registry=self.registry)
        gauge.set_function(open_requests)

    def response(self) -> Response:
        """The counters, as a Prometheus server scrapes them."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class Meter:
    """Counts every request and its time. A path that is no endpoint counts as ``other``."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts it when its answer has gone out."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] if scope["path"] in self.paths else "other"
        status = "499"  # nginx's number for: the client left before there was an answer

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)
