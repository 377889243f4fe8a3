"""Errors in the form OpenAI's clients read: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

ENDPOINTS = "the API is /v1/models, /v1/completions, /v1/chat/completions"


class ApiError(Exception):
    """A request this server does not fulfil: the HTTP status and what to tell the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The JSON object of the error."""
        if self.status == 429:
            kind = "rate_limit_error"
        else:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The whole HTTP response."""
        return json_response(self.body(), self.status, self.headers)


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON in pure ASCII: whatever characters a model wrote, it encodes and decodes."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


def from_validation(error: ValidationError) -> ApiError:
    """Names the first wrong field, the way a client would write it, and says what it must be."""
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    what = first["msg"].removeprefix("Value error, ")
    message = f"{field}: {what[:1].lower()}{what[1:]}" if field else what
    if others:
        message += f" (and {len(others)} more)"
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, message, param=field or None, code=code)


def on_api_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for its own errors: no such path, wrong method."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is no {request.url.path[:100]} here; {ENDPOINTS}",
        405: f"{request.method} is not allowed for {request.url.path}",
    }.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=error.headers).response()


def on_fault(_: Request, __: Exception) -> Response:
    """Starlette's handler for a fault of this program; the traceback goes to the server's log, not out."""
    return ApiError(
        500, "the server failed on this request; its log says why", code="internal_error"
    ).response()
