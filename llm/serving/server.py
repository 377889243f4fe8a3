"""The socket, taken before a model is loaded, and the uvicorn server that answers on it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import FrameType

from llm.serving.base import TextEngine
from llm.serving.settings import Serving
from llm.types import ConfigError

PIP = "pip install -e '.[serve]'"
GRACE_SECONDS = 3


def require_libraries() -> None:
    """Says how to install what only serving needs.

    Raises:
        ConfigError: starlette, uvicorn or prometheus-client is not installed.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError("task", "serve", f"needs {error.name}: {PIP}") from error


def take(host: str, port: int) -> socket.socket:
    """A listening socket. It listens from now on, so the port is ours while the model loads.

    Raises:
        ConfigError: the port is in use, or needs rights this user lacks; the host is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigError("host", host, "is not a known address; 127.0.0.1 is this machine") from None
    try:
        return _listen(family, kind, protocol, address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            mend = "is in use; choose another"
            if free := _nearest_free(family, kind, protocol, address):
                mend = f"is in use; nearest free: {free}"
            raise ConfigError("port", port, mend) from None
        if error.errno == errno.EACCES:
            raise ConfigError("port", port, "needs administrator rights; choose 1024 or higher") from None
        raise ConfigError("host", host, f"cannot be listened on ({error.strerror}); use 127.0.0.1") from None


def _listen(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        # Without it a port stays taken for a minute after its last connection closed. Listening at once
        # keeps it ours all the same: Linux lets two sockets with this flag share a port until one listens.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except OSError:
        opened.close()
        raise
    return opened


def _nearest_free(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> int | None:
    host, port, *rest = address
    assert isinstance(port, int)
    for candidate in range(port + 1, min(port + 100, 65536)):
        try:
            _listen(family, kind, protocol, (host, candidate, *rest)).close()
        except OSError:
            continue
        return candidate
    return None


def url(opened: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = opened.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"


def run_until_stopped(
    engine: TextEngine, serving: Serving, opened: socket.socket, announce: Callable[[], None]
) -> None:
    """Serves until Ctrl-C or SIGTERM; then calls off what is being generated and returns.

    Args:
        announce: Called once, when requests are answered.
    """
    import uvicorn

    from llm.serving.app import Api

    api = Api(engine, serving)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's form
            """The first signal ends the answers under way, the second does not wait for them.

            uvicorn's own handler raises the signal again after the server has stopped; here stopping is
            how a run of this task ends well.
            """
            self.force_exit = self.should_exit
            self.should_exit = True
            api.desk.stop()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            announce()

    config = uvicorn.Config(
        api.app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config).run(sockets=[opened])
