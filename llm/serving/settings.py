"""The `serving` component: where the server listens and how much it takes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from llm.types import ConfigError

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serving:
    """Settings of the HTTP server.

    Args:
        host: Address to listen on. Anything but this machine's own loopback opens the model, without a
            password, to whoever can reach it.
        port: TCP port; 0 takes any free one.
        model_name: What clients call the model; the checkpoint's run name when None.
        max_concurrent: Answers generated at the same time, each in its own thread.
        max_waiting: Requests that may wait for their turn; one more is refused with status 429.
        max_tokens: Length of a chat answer when the request does not say, in tokens.
        max_body_bytes: Largest request body; a larger one is refused with status 413.
        allowed_hosts: Names by which clients may address the server, beside the loopback names and `host`.
            A page of another site that points its own name at this address (DNS rebinding) is refused.
        allowed_origins: Web origins, ``http://localhost:5173``, whose pages may use the API from a browser.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model_name: str | None = None
    max_concurrent: Annotated[int, Field(ge=1, le=64)] = 1
    max_waiting: Annotated[int, Field(ge=0)] = 16
    max_tokens: Annotated[int, Field(ge=1)] = 512
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.check_arguments(
            host=self.host, allowed_hosts=self.allowed_hosts, allowed_origins=self.allowed_origins
        )

    @staticmethod
    def check_arguments(
        *,
        host: str = "127.0.0.1",
        allowed_hosts: Sequence[str] = (),
        allowed_origins: Sequence[str] = (),
    ) -> None:
        """Refuses names that could never match what a browser sends."""
        if not host or "/" in host:
            raise ConfigError("host", host, "must be an address or a name, such as 127.0.0.1")
        for name in allowed_hosts:
            if not name or "/" in name or "*" in name:
                raise ConfigError(
                    "allowed_hosts",
                    list(allowed_hosts),
                    f"{name!r} is not a bare host name, such as my-box.local",
                )
        for origin in allowed_origins:
            if (
                not origin.startswith(("http://", "https://"))
                or origin.count("/") != 2
                or origin.endswith("/")
            ):
                raise ConfigError(
                    "allowed_origins",
                    list(allowed_origins),
                    f"{origin!r} is not an origin, such as http://localhost:5173",
                )

    def host_names(self) -> frozenset[str]:
        """Every name, in lower case, that a request's ``Host`` may carry."""
        return frozenset(name.lower().strip("[]") for name in (*LOCAL_NAMES, self.host, *self.allowed_hosts))
