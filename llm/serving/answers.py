"""From events of a generation to an HTTP answer: in one piece, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm.serving.base import Finish
from llm.serving.desk import Desk, Job, Ticket
from llm.serving.errors import ApiError, json_response
from llm.serving.metrics import Metrics
from llm.serving.schema import Asked
from llm.serving.shapes import Choice, Shape, usage

T = TypeVar("T")
LOG = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """What a model is asked to continue, and the text of it that the answer repeats (``echo``)."""

    ids: Sequence[int]
    echo: str


async def answer(
    request: Request,
    desk: Desk,
    metrics: Metrics,
    shape: Shape,
    asked: Asked,
    prompts: Sequence[Prompt],
    jobs: Sequence[Job],
) -> Response:
    """Generates the jobs' choices and answers in the way that was asked for.

    Raises:
        ApiError: 429 when the queue is full; 503 when the server stops.
    """
    ticket = desk.submit(jobs)
    work = _Work(shape, ticket, prompts, jobs, metrics)
    if asked.stream:
        include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return EventStream(work.chunks(include_usage=include_usage), ticket)
    try:
        whole = await unless_gone(request.receive, work.whole())
    finally:
        ticket.close()
    return Response(status_code=499) if whole is None else json_response(whole)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None, with the work cancelled, when the client hangs up before."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(listen())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """Server-sent events; ends the generation when the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], ticket: Ticket) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks, self._ticket = chunks, ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Sends the events as they come."""
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self._ticket.close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        async for line in self._lines():
            body = f"data: {line}\n\n".encode("ascii")
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _lines(self) -> AsyncIterator[str]:
        """The chunks as JSON. The status line has gone out, so an error travels as one more event."""
        try:
            async for chunk in self._chunks:
                yield json.dumps(chunk)
        except ApiError as error:
            yield json.dumps(error.body())
        except Exception:
            LOG.exception("generation failed")
            fault = ApiError(
                500, "the server failed on this request; its log says why", code="internal_error"
            )
            yield json.dumps(fault.body())
        else:
            yield "[DONE]"


class _Work:
    """Puts the events of one request into the shape of its answer."""

    def __init__(
        self, shape: Shape, ticket: Ticket, prompts: Sequence[Prompt], jobs: Sequence[Job], metrics: Metrics
    ) -> None:
        self._shape, self._ticket, self._metrics = shape, ticket, metrics
        self._n_prompt = sum(len(prompt.ids) for prompt in prompts)
        per_prompt = len(jobs) // len(prompts)
        self._choices = [Choice(index, prompts[index // per_prompt].echo) for index in range(len(jobs))]
        metrics.tokens.labels("prompt").inc(self._n_prompt)

    def _totals(self) -> dict[str, int]:
        return usage(self._n_prompt, sum(choice.n_tokens for choice in self._choices))

    def _finish(self, choice: Choice, finish: Finish) -> None:
        choice.reason, choice.n_tokens = finish.reason, finish.n_tokens
        self._metrics.tokens.labels("completion").inc(finish.n_tokens)

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        async for index, part in self._ticket.events():
            choice = self._choices[index]
            if isinstance(part, Finish):
                self._finish(choice, part)
            else:
                choice.text += part.text
                choice.scores += part.scores
        return self._shape.whole(self._choices, self._totals())

    async def chunks(self, *, include_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """The answer in the chunks of a stream."""
        for choice in self._choices:
            if opening := self._shape.first(choice.index):
                yield self._with_usage(opening, include_usage)
            if choice.text:
                yield self._with_usage(self._shape.delta(choice.index, choice.text, ()), include_usage)
        async for index, part in self._ticket.events():
            if isinstance(part, Finish):
                self._finish(self._choices[index], part)
                chunk = self._shape.last(index, part.reason)
            elif part.text or (part.scores and self._shape.scored):
                chunk = self._shape.delta(index, part.text, part.scores)
            else:
                continue
            yield self._with_usage(chunk, include_usage)
        if include_usage:
            yield self._shape.totals(self._totals())

    @staticmethod
    def _with_usage(chunk: dict[str, Any], include_usage: bool) -> dict[str, Any]:
        """OpenAI's streams with usage carry ``"usage": null`` in every chunk but the last."""
        return {**chunk, "usage": None} if include_usage else chunk
