"""A model that needs no weights, and servers around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from llm.generation.sampling import Settings
from llm.serving.base import Finish, Piece, TokenScore
from llm.serving.settings import Serving
from llm.types import ConfigError, Conversation


class FakeEngine:
    """Ids are code points. The answer is the scripted text, or words drawn with the request's seed."""

    name = "fake"
    created = 1_700_000_000
    max_seq_len = 400
    vocab_size = 0x110000
    chats = True

    def __init__(self, reply: str | None = None, pause: float = 0.0) -> None:
        self.reply, self.pause = reply, pause
        self.asked: list[tuple[list[int], Settings]] = []
        self.running = 0
        self.most_running = 0
        self.pieces = 0
        self.fail_after: int | None = None
        self._lock = threading.Lock()

    def prompt_ids(self, text: str) -> list[int]:
        if "☠" in text:
            raise ConfigError("text", text, "holds a character the tokenizer does not know")
        return [ord(character) for character in text]

    def chat_ids(self, conversation: Conversation) -> list[int]:
        return self.prompt_ids("".join(f"<{m.role}>{m.content}" for m in conversation) + "<assistant>")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def _tokens(self, settings: Settings) -> list[str]:
        if self.reply is not None:
            words = self.reply.split(" ")
            return [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        n = (settings.seed or 0) if settings.temperature else 0
        return [f" w{(n * 7919 + i * 104729) % 1_000_003}" for i in range(2**12)]

    def stream(self, ids: Sequence[int], settings: Settings, *, chat: bool) -> Iterator[Piece | Finish]:
        with self._lock:
            self.asked.append((list(ids), settings))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            tokens = self._tokens(settings)
            for i, token in enumerate(tokens[: settings.max_new_tokens]):
                if self.fail_after is not None and i >= self.fail_after:
                    raise RuntimeError("secret detail of a fault")
                time.sleep(self.pause)
                self.pieces += 1
                yield Piece(token, (TokenScore(token, -0.5),))
            n = min(len(tokens), settings.max_new_tokens)
            yield Finish("stop" if n == len(tokens) else "length", n)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@contextmanager
def live(engine: FakeEngine, serving: Serving | None = None) -> Iterator[str]:
    """A real server on a free port, in a thread of this process; yields its URL."""
    uvicorn = pytest.importorskip("uvicorn")
    from llm.serving.app import Api
    from llm.serving.server import take, url

    opened = take("127.0.0.1", 0)
    api = Api(engine, serving or Serving(port=0))
    config = uvicorn.Config(api.app, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield url(opened)
    finally:
        api.desk.stop()
        server.should_exit = True
        thread.join(10)


def wait_until(condition, seconds: float = 10.0):  # type: ignore[no-untyped-def]
    """Waits for `condition()` to be truthy and returns it."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {condition}")
        time.sleep(0.01)
    return result
