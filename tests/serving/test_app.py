"""The API's shapes, parameters and errors, over the in-process client."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.testclient import TestClient

from llm.serving.app import Api
from llm.serving.settings import Serving
from tests.serving.conftest import FakeEngine

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
WRONG, UNSUPPORTED = "invalid_value", "unsupported_parameter"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(engine: FakeEngine):
    with TestClient(Api(engine, Serving(max_tokens=12)).app, base_url="http://127.0.0.1:8000") as made:
        yield made


def events(response) -> list[dict]:
    """The JSON of each event; checks the framing and that the stream says it is done."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert blocks.pop() == "data: [DONE]"
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def test_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    (about,) = listed["data"]
    assert {k: about[k] for k in ("id", "object", "created", "owned_by")} == {
        "id": "fake", "object": "model", "created": 1_700_000_000, "owned_by": "local",
    }  # fmt: skip
    assert client.get("/v1/models/fake").json() == about
    missing = client.get("/v1/models/gpt-4")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_chat_completion_shape(client: TestClient, engine: FakeEngine) -> None:
    response = client.post(CHAT, json={"model": "fake", "messages": HELLO, "max_tokens": 3, "seed": 5})
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "fake")
    (choice,) = body["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].count(" w") == 3
    assert choice["finish_reason"] == "length"
    n_prompt = len("<user>hello<assistant>")
    assert body["usage"] == {
        "prompt_tokens": n_prompt, "completion_tokens": 3, "total_tokens": n_prompt + 3
    }  # fmt: skip
    assert engine.asked[0][0] == engine.prompt_ids("<user>hello<assistant>")


def test_completion_shape(client: TestClient) -> None:
    body = client.post(TEXT, json={"prompt": "abc", "max_tokens": 2, "logprobs": 1}).json()
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    (choice,) = body["choices"]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"] == [-0.5, -0.5]
    assert choice["logprobs"]["text_offset"] == [0, len(choice["logprobs"]["tokens"][0])]


def test_natural_end_is_stop() -> None:
    with TestClient(Api(FakeEngine("two words"), Serving()).app, base_url="http://localhost") as client:
        choice = client.post(CHAT, json={"messages": HELLO}).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("two words", "stop")


def test_default_lengths(client: TestClient) -> None:
    assert client.post(CHAT, json={"messages": HELLO}).json()["usage"]["completion_tokens"] == 12
    assert client.post(TEXT, json={"prompt": "a"}).json()["usage"]["completion_tokens"] == 16
    both = {"messages": HELLO, "max_tokens": 9, "max_completion_tokens": 4}
    assert client.post(CHAT, json=both).json()["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, {"messages": HELLO, "logprobs": True}), (TEXT, {"prompt": "abc", "logprobs": 0}),
     (TEXT, {"prompt": ["abc", "de"], "n": 2, "echo": True}), (CHAT, {"messages": HELLO, "n": 3})],
)  # fmt: skip
def test_a_stream_adds_up_to_the_whole(client: TestClient, path: str, body: dict) -> None:
    body = {**body, "seed": 11, "max_tokens": 6}
    whole = client.post(path, json=body).json()
    streamed = client.post(path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    chunks = events(streamed)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    for choice in whole["choices"]:
        parts = [p for chunk in chunks for p in chunk["choices"] if p["index"] == choice["index"]]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        assert all(part["finish_reason"] is None for part in parts[:-1])
        scores = [part["logprobs"] for part in parts if part["logprobs"]]
        if path == CHAT:
            assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
            assert parts[0]["delta"] == {"role": "assistant", "content": ""}
            assert "".join(p["delta"].get("content", "") for p in parts) == choice["message"]["content"]
            flat = [token for score in scores for token in score["content"]]
            assert flat == (choice["logprobs"] or {"content": []})["content"]
        else:
            assert "".join(part["text"] for part in parts) == choice["text"]
            if choice["logprobs"]:
                flat = [offset for score in scores for offset in score["text_offset"]]
                assert flat == choice["logprobs"]["text_offset"]


def test_a_stream_without_usage_has_none(client: TestClient) -> None:
    chunks = events(client.post(CHAT, json={"messages": HELLO, "stream": True}))
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_choices_differ_and_a_seed_repeats_them(client: TestClient) -> None:
    def texts(**more) -> list[str]:
        body = {"messages": HELLO, "n": 3, **more}
        return [c["message"]["content"] for c in client.post(CHAT, json=body).json()["choices"]]

    assert texts(seed=3) == texts(seed=3)
    assert len(set(texts(seed=3))) == 3
    assert texts(seed=3) != texts(seed=4)
    assert texts() != texts()
    assert texts(temperature=0) == texts(temperature=0)


def test_settings_reach_the_engine(client: TestClient, engine: FakeEngine) -> None:
    asked = {
        "temperature": 0.25,
        "top_p": 0.5,
        "top_k": 7,
        "stop": ["\n", "END"],
        "max_tokens": 4,
        "seed": -1,
    }
    client.post(CHAT, json={"messages": HELLO, **asked})
    settings = engine.asked[0][1]
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.25, 0.5, 7)
    assert (tuple(settings.stop), settings.max_new_tokens) == (("\n", "END"), 4)
    assert settings.seed >= 0
    client.post(CHAT, json={"messages": HELLO, "stop": "one", "top_p": 0})
    assert tuple(engine.asked[1][1].stop) == ("one",)
    assert engine.asked[1][1].temperature == 0


def test_prompts_as_ids_lists_and_echo(client: TestClient, engine: FakeEngine) -> None:
    body = client.post(TEXT, json={"prompt": [[97, 98], "cd"], "echo": True, "max_tokens": 1}).json()
    assert [choice["text"].split(" ")[0] for choice in body["choices"]] == ["ab", "cd"]
    assert body["usage"]["prompt_tokens"] == 4
    assert client.post(TEXT, json={"prompt": [97, 98, 99]}).json()["usage"]["prompt_tokens"] == 3
    assert engine.asked[-1][0] == [97, 98, 99]


def test_content_parts_and_developer_role(client: TestClient, engine: FakeEngine) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": "x",
        },
        {"role": "assistant", "content": None, "tool_calls": None},
    ]
    assert client.post(CHAT, json={"messages": messages}).status_code == 200
    assert engine.asked[0][0] == engine.prompt_ids("<system>be brief<user>a\nb<assistant><assistant>")


def test_an_answer_is_cut_to_the_context(client: TestClient, engine: FakeEngine) -> None:
    body = client.post(TEXT, json={"prompt": "a" * (engine.max_seq_len - 3), "max_tokens": 50}).json()
    assert body["usage"]["completion_tokens"] == 4  # the last one need not be read
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code", "says"),
    [
        (CHAT, {}, 400, "messages", "missing_required_parameter", "required"),
        (CHAT, {"messages": []}, 400, "messages", WRONG, "at least 1"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role", WRONG, "'user'"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content", WRONG, "string"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400,
         "messages[0].content",
         WRONG, "image_url"),
        (CHAT, {"messages": HELLO, "temperature": "hot"}, 400, "temperature", WRONG, "number"),
        (CHAT, {"messages": HELLO, "temperature": 3}, 400, "temperature", WRONG, "equal to 2"),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, 400, "max_tokens", WRONG, "greater than"),
        (CHAT, {"messages": HELLO, "max_tokens": True}, 400, "max_tokens", WRONG, "integer"),
        (CHAT, {"messages": HELLO, "seed": 2**70}, 400, "seed", WRONG, "less than"),
        (CHAT, {"messages": HELLO, "stop": ["a"] * 5}, 400, "stop", WRONG, "at most 4"),
        (CHAT, {"messages": HELLO, "stop": [""]}, 400, "stop[0]", WRONG, "at least 1"),
        (CHAT, {"messages": HELLO, "stream": "yes"}, 400, "stream", WRONG, "boolean"),
        (CHAT, {"messages": HELLO, "n": 9}, 400, "n", WRONG, "less than or equal to 8"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, 400, "tools", UNSUPPORTED, "tools"),
        (CHAT, {"messages": HELLO, "presence_penalty": 1}, 400, "presence_penalty", UNSUPPORTED, "not"),
        (CHAT, {"messages": HELLO, "temperatures": 1}, 400, "temperatures", "unknown_parameter",
         "did you mean temperature"),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, 400, "top_logprobs", None, "chosen"),
        (CHAT, {"messages": HELLO, "model": "gpt-4"}, 404, "model", "model_not_found", "'fake' is"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 500}]}, 400,
         "messages", "context_length_exceeded",
         "model's 400"),
        (CHAT, {"messages": [{"role": "user", "content": "☠"}]}, 400, "messages", WRONG, "does not know"),
        (TEXT, {}, 400, "prompt", "missing_required_parameter", "required"),
        (TEXT, {"prompt": 5}, 400, "prompt", WRONG, "string"),
        (TEXT, {"prompt": [1, "a"]}, 400, "prompt", WRONG, "list of either"),
        (TEXT, {"prompt": []}, 400, "prompt", WRONG, "at least 1"),
        (TEXT, {"prompt": ""}, 400, "prompt", WRONG, "empty"),
        (TEXT, {"prompt": [-1]}, 400, "prompt", WRONG, "token id"),
        (TEXT, {"prompt": [10**30]}, 400, "prompt", WRONG, "token id"),
        (TEXT, {"prompt": "a" * 500}, 400, "prompt", "context_length_exceeded", "500 tokens"),
        (TEXT, {"prompt": ["a"] * 3, "n": 3}, 400, "n", WRONG, "at most 8"),
        (TEXT, {"prompt": "a", "suffix": "z"}, 400, "suffix", UNSUPPORTED, "not supported"),
        (TEXT, {"prompt": "a", "echo": True, "logprobs": 1}, 400, "logprobs", None, "echo"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    client: TestClient, path: str, body: dict, status: int, param: str, code: str, says: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert says in error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b'"x"', b"null", b"\xff\xfe", b"[" * 50_000, b'{"messages": NaN}',
     b'{"prompt": "\\ud800"}', b'{"prompt": "a", "temperature": 1e999}'],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_bad_json(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_neutral_and_bookkeeping_parameters_are_accepted(client: TestClient) -> None:
    extra = {"tools": [], "logit_bias": {}, "presence_penalty": 0, "user": "me", "store": False,
             "response_format": {"type": "text"}, "temperature": None, "stop": None, "n": None,
             "metadata": None}  # fmt: skip
    assert client.post(CHAT, json={"messages": HELLO, **extra}).status_code == 200


def test_body_limit(engine: FakeEngine) -> None:
    with TestClient(Api(engine, Serving(max_body_bytes=2000)).app, base_url="http://localhost") as client:
        response = client.post(TEXT, json={"prompt": "a" * 3000})
        chunked = client.post(TEXT, content=(b" " * 500 for _ in range(10)))
        fits = client.post(TEXT, json={"prompt": "a" * 100})
    for refused in (response, chunked):
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "body_too_large"
    assert fits.status_code == 200


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nope").status_code == 404
    assert "/v1/models" in client.get("/nope").json()["error"]["message"]
    wrong = client.get(CHAT)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["type"] == "invalid_request_error"


def test_a_model_without_chat_template(engine: FakeEngine) -> None:
    engine.chats = False
    with TestClient(Api(engine, Serving()).app, base_url="http://localhost") as client:
        refused = client.post(CHAT, json={"messages": HELLO})
        assert client.post(TEXT, json={"prompt": "a"}).status_code == 200
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "no_chat_template"


def test_a_fault_is_a_500_without_details(engine: FakeEngine) -> None:
    engine.fail_after = 1
    app = Api(engine, Serving()).app
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        whole = client.post(CHAT, json={"messages": HELLO})
        stream = client.post(CHAT, json={"messages": HELLO, "stream": True})
    assert whole.status_code == 500
    assert whole.json()["error"]["type"] == "server_error"
    assert "secret" not in whole.text + stream.text
    last = stream.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in stream.text


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "fake", "open_requests": 0}
    client.post(TEXT, json={"prompt": "abc", "max_tokens": 2})
    client.post(TEXT, json={"prompt": "abc", "max_tokens": 3, "stream": True})
    client.post(TEXT, json={})
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'llm_tokens_total{kind="prompt"} 6.0' in text
    assert 'llm_tokens_total{kind="completion"} 5.0' in text
    assert 'llm_requests_total{path="/v1/completions",status="200"} 2.0' in text
    assert 'llm_requests_total{path="/v1/completions",status="400"} 1.0' in text
    assert 'llm_requests_total{path="other",status="404"} 1.0' in text
    assert 'llm_request_seconds_count{path="/v1/completions"} 3.0' in text
