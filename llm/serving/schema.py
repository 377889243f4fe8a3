"""What clients may ask, as OpenAI's API defines it, validated strictly: a wrong type is named, not coerced.

Parameters of OpenAI's API that this server cannot honour are refused unless they carry the value that
asks for nothing (``tools=[]``, ``presence_penalty=0``): dropping them in silence would answer a question
that was not put.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from llm.generation.sampling import Settings
from llm.serving.errors import ApiError, from_validation
from llm.types import Conversation, Message

MAX_CHOICES = 8
MAX_STOPS = 4
COMPLETION_TOKENS = 16
"""Default length of a plain completion; OpenAI's."""

IGNORED = frozenset(
    {
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Parameters about bookkeeping at the provider: they do not change an answer."""

UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "logit_bias": ({},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "suffix": ("",),
    "best_of": (1,),
}
"""Parameters this server cannot honour, with the values (beside null) that ask for nothing."""


def _as_list(value: object) -> object:
    """One string, several, or none: all of them a list."""
    return [value] if isinstance(value, str) else [] if value is None else value


def _as_prompts(value: object) -> object:
    """A prompt is text, token ids, or a list of either; always a list of prompts from here on."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(_is_id(one) for one in value)):
        return [value]
    fits = isinstance(value, list) and all(
        isinstance(one, str) or (isinstance(one, list) and all(_is_id(x) for x in one)) for one in value
    )
    if not fits:
        raise ValueError("must be a string, a list of token ids, or a list of either")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_text(value: object) -> object:
    """A message's content: text, or a list of text parts, joined."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of text parts")
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in {"text", "refusal"} and isinstance(part.get(kind), str):
            texts.append(part[kind])
        else:
            raise ValueError(f"has a part of type {kind!r}; this server reads text parts only")
    return "\n".join(texts)


class StreamOptions(BaseModel):
    """How an answer is streamed."""

    model_config = ConfigDict(strict=True, extra="ignore")
    include_usage: bool | None = None


class Asked(BaseModel):
    """What completions and chat completions have in common."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=2**31)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=500)]],
        Field(max_length=MAX_STOPS),
        BeforeValidator(_as_list),
    ] = []
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def wanted_tokens(self) -> int | None:
        """The length asked for, or None where the server may choose."""
        return self.max_tokens

    def settings(self, *, max_new_tokens: int, choice: int, default_seed: int) -> Settings:
        """How to sample choice number `choice`: each has its own seed, so that they differ."""
        seed = self.seed if self.seed is not None else default_seed
        top_p = 1.0 if self.top_p is None else self.top_p
        temperature = 1.0 if self.temperature is None else self.temperature
        return Settings(
            max_new_tokens=max_new_tokens,
            temperature=temperature if top_p > 0 else 0.0,  # an empty nucleus leaves the likeliest token
            top_k=self.top_k,
            top_p=top_p or 1.0,
            seed=(seed + choice) % 2**63,
            stop=tuple(self.stop),
        )


class CompletionAsked(Asked):
    """Body of ``POST /v1/completions``."""

    prompt: Annotated[
        list[str | list[int]], Field(min_length=1, max_length=MAX_CHOICES), BeforeValidator(_as_prompts)
    ]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class ChatTurn(BaseModel):
    """One message of a chat request."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_as_text)] = ""


class ChatAsked(Asked):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatTurn], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def wanted_tokens(self) -> int | None:
        """OpenAI renamed ``max_tokens``; both names are read, the new one first."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def conversation(self) -> Conversation:
        """The messages in the words of this house."""
        return tuple(
            Message("system" if turn.role == "developer" else turn.role, turn.content)
            for turn in self.messages
        )


AskedT = TypeVar("AskedT", bound=Asked)


def parse(kind: type[AskedT], body: bytes) -> AskedT:
    """Reads a request body.

    Raises:
        ApiError: 400, naming the place in the JSON or the field that is wrong.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        return kind.model_validate(_known(kind, value))
    except ValidationError as error:
        raise from_validation(error) from None


def _known(kind: type[Asked], value: dict[str, Any]) -> dict[str, Any]:
    """The parameters this server reads; raises on those it cannot honour or does not know."""
    kept = {}
    for name, given in value.items():
        if name in kind.model_fields:
            kept[name] = given
        elif name in UNSUPPORTED:
            if given is not None and given not in UNSUPPORTED[name]:
                raise ApiError(
                    400, f"{name}: not supported by this server", param=name, code="unsupported_parameter"
                )
        elif name not in IGNORED:
            close = difflib.get_close_matches(name, kind.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ApiError(
                400, f"{name[:80]}: unknown parameter{hint}", param=name[:80], code="unknown_parameter"
            )
    return kept
