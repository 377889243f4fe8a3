"""Whatever a client sends, the answer is an answer or a named mistake: never a fault of the server."""

from __future__ import annotations

import json
from functools import cache

import pytest

pytest.importorskip("starlette")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from llm.serving.app import Api
from llm.serving.schema import IGNORED, UNSUPPORTED, ChatAsked, CompletionAsked
from llm.serving.settings import Serving
from tests.serving.conftest import FakeEngine

QUIET = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)

texts = st.text(max_size=40) | st.sampled_from(["\x00", "👩‍👩‍👧", "\u202e", "☠", "a" * 500, "fake", "user"])
numbers = (
    st.integers()
    | st.integers(0, 9)
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(0, 2)
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | values},
        optional={"content": texts | values, "name": values},
    ),
    max_size=4,
)
names = sorted({*ChatAsked.model_fields, *CompletionAsked.model_fields, *UNSUPPORTED, *IGNORED, "unknown"})
bodies = st.builds(
    lambda extra, own: {**extra, **own},
    st.dictionaries(st.sampled_from(names), values, max_size=3),
    st.one_of(
        st.fixed_dictionaries({"messages": messages, "prompt": texts}),
        st.fixed_dictionaries({"messages": messages}),
        st.fixed_dictionaries(
            {"prompt": texts | st.lists(texts, max_size=3) | st.lists(st.integers(0, 500))}
        ),
        st.just({}),
    ),
)
paths = st.sampled_from(["/v1/completions", "/v1/chat/completions"])


@cache
def client() -> TestClient:
    return TestClient(Api(FakeEngine(), Serving(max_tokens=3)).app, base_url="http://localhost")


def check(response) -> None:
    assert response.status_code in {200, 400, 404, 413}, response.text
    if response.status_code == 200:
        if not response.headers["content-type"].startswith("text/event-stream"):
            assert response.json()["choices"]
        else:
            assert response.text.endswith("data: [DONE]\n\n")
        return
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"


@given(paths, bodies)
@QUIET
def test_any_json_object(path: str, body: dict) -> None:
    text = json.dumps(body)
    check(client().post(path, content=text.replace('"unknown"', '"\\ud800"')))


@given(paths, values)
@QUIET
def test_any_json(path: str, body: object) -> None:
    check(client().post(path, content=json.dumps(body)))


@given(paths, st.binary(max_size=60))
@QUIET
def test_any_bytes(path: str, body: bytes) -> None:
    check(client().post(path, content=body))


@given(st.text(max_size=30))
@QUIET
def test_any_path(name: str) -> None:
    from urllib.parse import quote

    path = quote(name.encode("utf-8", "surrogatepass"), safe="")
    for base in ("/v1/models/", "/v1/", "/"):
        assert client().get(f"{base}{path}").status_code in {200, 404, 405}


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e5000", "0." + "1" * 5000])
@pytest.mark.parametrize("field", ["max_tokens", "seed", "temperature", "prompt", "n"])
def test_endless_numbers(field: str, number: str) -> None:
    value = f"[{number}]" if field == "prompt" else number
    prompt = "" if field == "prompt" else '"prompt": "a", '
    check(client().post("/v1/completions", content=f'{{{prompt}"{field}": {value}}}'))
