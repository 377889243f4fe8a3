"""The HTTP API: OpenAI's completions and chat completions over one local model, and the chat page."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm.serving.answers import Prompt, answer
from llm.serving.base import TextEngine
from llm.serving.desk import Desk, Job
from llm.serving.errors import ApiError, json_response, on_api_error, on_fault, on_http_error
from llm.serving.guards import Guard, read_body
from llm.serving.metrics import Meter, Metrics
from llm.serving.page import Page
from llm.serving.schema import COMPLETION_TOKENS, MAX_CHOICES, Asked, ChatAsked, CompletionAsked, parse
from llm.serving.settings import Serving
from llm.serving.shapes import ChatShape, CompletionShape
from llm.types import ConfigError

T = TypeVar("T")


class Api:
    """The endpoints, with what they share.

    Attributes:
        app: The ASGI application.
        desk: Where generations run; its `stop` calls them all off.
    """

    def __init__(self, engine: TextEngine, serving: Serving) -> None:
        self.engine, self.serving = engine, serving
        self.desk = Desk(engine, max_concurrent=serving.max_concurrent, max_waiting=serving.max_waiting)
        self.metrics = Metrics(lambda: self.desk.open)
        self.page = Page()
        routes = [
            Route("/", self.chat_page),
            Route("/health", self.health),
            Route("/metrics", self.prometheus),
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
        ]
        middleware = [
            Middleware(Meter, metrics=self.metrics, paths=[route.path for route in routes]),
            Middleware(Guard, hosts=serving.host_names(), origins=serving.allowed_origins),
        ]
        if serving.allowed_origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(serving.allowed_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
            middleware.append(cors)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            self.desk.close()

        self.app = Starlette(
            routes=routes,
            middleware=middleware,
            exception_handlers={ApiError: on_api_error, HTTPException: on_http_error, Exception: on_fault},
            lifespan=lifespan,
        )

    # ------------------------------------------------------------------------- endpoints

    async def chat_page(self, _: Request) -> Response:
        """``GET /``."""
        return self.page.response()

    async def health(self, _: Request) -> Response:
        """``GET /health``: answers while the model works, too."""
        return json_response({"status": "ok", "model": self.engine.name, "open_requests": self.desk.open})

    async def prometheus(self, _: Request) -> Response:
        """``GET /metrics``."""
        return self.metrics.response()

    async def models(self, _: Request) -> Response:
        """``GET /v1/models``: the one model there is."""
        return json_response({"object": "list", "data": [self._about()]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``."""
        self._check_model(request.path_params["model"])
        return json_response(self._about())

    async def completions(self, request: Request) -> Response:
        """``POST /v1/completions``: continues a text."""
        asked = parse(CompletionAsked, await read_body(request, self.serving.max_body_bytes))
        self._check_model(asked.model)
        if asked.echo and asked.logprobs is not None:
            raise ApiError(
                400, "logprobs: not given together with echo; ask for one of them", param="logprobs"
            )
        prompts = await run_in_threadpool(self._text_prompts, asked)
        scored = asked.logprobs is not None
        shape = CompletionShape(self.engine.name, scored=scored)
        jobs = self._jobs(asked, prompts, default_tokens=COMPLETION_TOKENS, chat=False)
        return await answer(request, self.desk, self.metrics, shape, asked, prompts, jobs)

    async def chat_completions(self, request: Request) -> Response:
        """``POST /v1/chat/completions``: the assistant's next turn."""
        asked = parse(ChatAsked, await read_body(request, self.serving.max_body_bytes))
        self._check_model(asked.model)
        if not self.engine.chats:
            raise ApiError(
                400, "this model has no chat template; use /v1/completions", code="no_chat_template"
            )
        if asked.top_logprobs:
            raise ApiError(
                400,
                "top_logprobs: only the chosen token's own logprob is given; set it to 0",
                param="top_logprobs",
            )
        prompts = [await run_in_threadpool(self._chat_prompt, asked)]
        shape = ChatShape(self.engine.name, scored=bool(asked.logprobs))
        jobs = self._jobs(asked, prompts, default_tokens=self.serving.max_tokens, chat=True)
        return await answer(request, self.desk, self.metrics, shape, asked, prompts, jobs)

    # ------------------------------------------------------------------------- what they share

    def _about(self) -> dict[str, object]:
        """OpenAI's model object, with vLLM's name for the context length and whether the model chats."""
        return {
            "id": self.engine.name,
            "object": "model",
            "created": self.engine.created,
            "owned_by": "local",
            "max_model_len": self.engine.max_seq_len,
            "chats": self.engine.chats,
        }

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self.engine.name:
            raise ApiError(
                404,
                f"model: {name[:100]!r} is not served here; {self.engine.name!r} is",
                param="model",
                code="model_not_found",
            )

    def _text_prompts(self, asked: CompletionAsked) -> list[Prompt]:
        return [self._text_prompt(given, echo=bool(asked.echo)) for given in asked.prompt]

    def _text_prompt(self, given: str | list[int], *, echo: bool) -> Prompt:
        if isinstance(given, str):
            ids = self._encoded("prompt", self.engine.prompt_ids, given)
            return Prompt(ids, given if echo else "")
        if not all(0 <= one < self.engine.vocab_size for one in given):
            raise _invalid(
                "prompt", f"has a number that is no token id; they are 0 to {self.engine.vocab_size - 1}"
            )
        return Prompt(given, self.engine.decode(given) if echo else "")

    def _chat_prompt(self, asked: ChatAsked) -> Prompt:
        return Prompt(self._encoded("messages", self.engine.chat_ids, asked.conversation()), "")

    @staticmethod
    def _encoded(param: str, encode: Callable[[T], list[int]], given: T) -> list[int]:
        try:
            return encode(given)
        except ConfigError as error:  # a character the tokenizer has no id for, say
            raise _invalid(param, error.mend) from error

    def _jobs(self, asked: Asked, prompts: list[Prompt], *, default_tokens: int, chat: bool) -> list[Job]:
        """One job a choice; each answer is cut to what the context has room for."""
        per_prompt = asked.n or 1
        n_choices = per_prompt * len(prompts)
        if n_choices > MAX_CHOICES:
            raise _invalid("n", f"{n_choices} answers in one request; at most {MAX_CHOICES}")
        param, limit = "messages" if chat else "prompt", self.engine.max_seq_len
        default_seed = secrets.randbits(31)
        jobs = []
        for choice in range(n_choices):
            ids = prompts[choice // per_prompt].ids
            if not ids:
                raise _invalid(param, "is empty; there is nothing to continue")
            if len(ids) > limit:
                code = "context_length_exceeded"
                raise _invalid(param, f"{len(ids)} tokens do not fit in the model's {limit}", code=code)
            wanted = asked.wanted_tokens() or default_tokens
            n_new = min(wanted, limit - len(ids) + 1)  # the last token written is never read
            settings = asked.settings(max_new_tokens=n_new, choice=choice, default_seed=default_seed)
            jobs.append(Job(ids, settings, chat))
        return jobs


def _invalid(param: str, what: str, *, code: str = "invalid_value") -> ApiError:
    return ApiError(400, f"{param}: {what}", param=param, code=code)
