"""The desk between HTTP and the model: worker threads, a short queue, and a way to call an answer off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from llm.generation.sampling import Settings
from llm.serving.base import Finish, Piece, TextEngine
from llm.serving.errors import ApiError


class Job(NamedTuple):
    """One choice to generate."""

    ids: Sequence[int]
    settings: Settings
    chat: bool


class Event(NamedTuple):
    """What happened to choice number `choice`."""

    choice: int
    part: Piece | Finish


class Desk:
    """Runs jobs on at most `max_concurrent` threads; `max_waiting` more requests may wait their turn."""

    def __init__(self, engine: TextEngine, *, max_concurrent: int, max_waiting: int) -> None:
        self.engine = engine
        self.limit = max_concurrent + max_waiting
        self._pool = ThreadPoolExecutor(max_concurrent, thread_name_prefix="generation")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.open = 0

    def submit(self, jobs: Sequence[Job]) -> Ticket:
        """Queues the choices of one request; they are generated one after the other.

        Raises:
            ApiError: 429 when the queue is full, 503 when the server is stopping.
        """
        if self._stopping.is_set():
            raise ApiError(503, "the server is stopping")
        with self._lock:
            if self.open >= self.limit:
                raise ApiError(
                    429,
                    "the server is busy; try again shortly",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self.open += 1
        ticket = Ticket(self.engine, jobs, self._stopping)
        self._pool.submit(ticket.work).add_done_callback(self._done)
        return ticket

    def _done(self, _: object) -> None:
        with self._lock:
            self.open -= 1

    def stop(self) -> None:
        """Calls off what runs and waits; safe to call from a signal handler, and more than once."""
        self._stopping.set()

    def close(self) -> None:
        """Stops and lets the threads end; each does so at its next token."""
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)


class Ticket:
    """One request at the desk. Its owner closes it, done or not: that is what ends the generation."""

    def __init__(self, engine: TextEngine, jobs: Sequence[Job], stopping: threading.Event) -> None:
        self._engine, self._jobs, self._stopping = engine, jobs, stopping
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._called_off = threading.Event()

    def close(self) -> None:
        """Nobody listens any more."""
        self._called_off.set()

    async def events(self) -> AsyncIterator[Event]:
        """The events of all choices, in order.

        Raises:
            ApiError: 503 when the server stops before the end.
            Exception: whatever the model raised.
        """
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def work(self) -> None:
        """The worker thread's side."""
        try:
            for index, job in enumerate(self._jobs):
                self._generate(index, job)
            self._tell(None)
        except Exception as error:
            self._tell(error)

    def _generate(self, index: int, job: Job) -> None:
        if self._called_off.is_set():
            return
        stream = self._engine.stream(job.ids, job.settings, chat=job.chat)
        try:
            for part in stream:
                if self._stopping.is_set():
                    raise ApiError(503, "the server is stopping")
                if self._called_off.is_set():
                    return
                self._tell(Event(index, part))
        finally:
            if close := getattr(stream, "close", None):
                close()

    def _tell(self, event: Event | Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server has gone, and with it whoever listened
            self._called_off.set()
