"""A real server: concurrency, clients that leave, ports, stopping."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("uvicorn")

import httpx
import openai

from llm.serving.server import take, url
from llm.serving.settings import Serving
from llm.types import ConfigError
from tests.serving.conftest import FakeEngine, live, wait_until

LONG = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 300, "seed": 1}


def post(base: str, body: dict, **more) -> httpx.Response:
    return httpx.post(f"{base}v1/chat/completions", json=body, timeout=30, **more)


def test_stays_responsive_while_generating() -> None:
    engine = FakeEngine(pause=0.02)
    with live(engine) as base, ThreadPoolExecutor() as pool:
        answer = pool.submit(post, base, {**LONG, "max_tokens": 50})
        wait_until(lambda: engine.running)
        began = time.monotonic()
        health = httpx.get(f"{base}health").json()
        assert time.monotonic() - began < 0.5
        assert health["open_requests"] == 1
        assert not answer.done()
        assert answer.result().status_code == 200


def test_streams_piece_by_piece() -> None:
    engine = FakeEngine("one two three four", pause=0.15)
    with (
        live(engine) as base,
        httpx.stream(
            "POST", f"{base}v1/chat/completions", json={**LONG, "stream": True}, timeout=30
        ) as response,
    ):
        arrivals = [(time.monotonic(), line) for line in response.iter_lines() if '"content": "' in line]
    assert len(arrivals) == 5
    assert arrivals[-1][0] - arrivals[1][0] > 0.3, "the pieces came all at once"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_generation(stream: bool) -> None:
    engine = FakeEngine(pause=0.01)
    with live(engine) as base:
        host, port = base.removeprefix("http://").rstrip("/").split(":")
        body = json.dumps({**LONG, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as raw:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
            raw.sendall(f"{head}\r\n\r\n".encode() + body)
            wait_until(lambda: engine.pieces > 3)
        wait_until(lambda: not engine.running)
        assert engine.pieces < 200
        wait_until(lambda: httpx.get(f"{base}health").json()["open_requests"] == 0)
        assert post(base, {**LONG, "max_tokens": 2}).status_code == 200


def test_a_waiting_client_that_leaves_is_never_generated_for() -> None:
    engine = FakeEngine(pause=0.01)
    with live(engine) as base, ThreadPoolExecutor() as pool:
        first = pool.submit(post, base, {**LONG, "max_tokens": 60})
        wait_until(lambda: engine.running)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{base}v1/chat/completions", json=LONG, timeout=0.1)
        assert first.result().status_code == 200
        wait_until(lambda: httpx.get(f"{base}health").json()["open_requests"] == 0)
    assert len(engine.asked) == 1


def test_one_at_a_time_in_order_and_the_queue_has_an_end() -> None:
    engine = FakeEngine(pause=0.005)
    with live(engine, Serving(max_concurrent=1, max_waiting=2)) as base, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, base, {**LONG, "max_tokens": 40, "seed": i}) for i in range(8)]
        statuses = sorted(answer.result().status_code for answer in answers)
    assert statuses == [200] * 3 + [429] * 5
    refused = next(a.result() for a in answers if a.result().status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert engine.most_running == 1


def test_several_at_a_time_give_the_answers_they_give_alone() -> None:
    engine = FakeEngine(pause=0.005)
    with live(engine, Serving(max_concurrent=3, max_waiting=8)) as base, ThreadPoolExecutor(6) as pool:

        def ask(seed: int) -> str:
            return post(base, {**LONG, "max_tokens": 20, "seed": seed}).json()["choices"][0]["message"][
                "content"
            ]

        together = list(pool.map(ask, range(6)))
        alone = [ask(seed) for seed in range(6)]
    assert together == alone
    assert 1 < engine.most_running <= 3


def test_a_much_too_large_body_still_gets_its_answer() -> None:
    with live(FakeEngine(), Serving(max_body_bytes=100_000)) as base:
        response = httpx.post(f"{base}v1/completions", json={"prompt": "a" * 1_000_000}, timeout=30)
        assert response.status_code == 413


def test_the_official_client(engine: FakeEngine) -> None:
    with live(engine) as base:
        client = openai.OpenAI(base_url=f"{base}v1", api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["fake"]
        assert client.models.retrieve("fake").id == "fake"
        messages = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(
            model="fake", messages=messages, seed=4, max_tokens=5, logprobs=True
        )
        assert whole.usage.completion_tokens == 5
        assert whole.choices[0].logprobs.content[0].logprob == -0.5
        stream = client.chat.completions.create(
            model="fake", messages=messages, seed=4, max_tokens=5, stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == whole.choices[0].message.content
        plain = client.completions.create(model="fake", prompt="abc", max_tokens=3)
        assert plain.choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError, match="gpt-4"):
            client.chat.completions.create(model="gpt-4", messages=messages)
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="fake", messages=messages, temperature=9)
        assert caught.value.param == "temperature"
        engine.fail_after = 1
        with pytest.raises(openai.APIError, match="failed"):
            list(client.chat.completions.create(model="fake", messages=messages, stream=True))


def test_a_port_in_use_is_named_with_the_nearest_free() -> None:
    with take("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="is in use; nearest free: ") as caught:
            take("127.0.0.1", port)
        assert (caught.value.key, caught.value.value) == ("port", port)
        nearest = int(caught.value.mend.rpartition(" ")[2])
        assert nearest > port
        take("127.0.0.1", nearest).close()
    take("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "x" * 300])
def test_a_host_that_is_not_here(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        take(host, 0)
    assert caught.value.key == "host"


def test_url() -> None:
    with take("0.0.0.0", 0) as opened:
        assert url(opened) == f"http://127.0.0.1:{opened.getsockname()[1]}/"


def test_stopping_ends_streams_at_once() -> None:
    engine = FakeEngine(pause=0.02)
    lines: list[str] = []

    def listen(base: str) -> None:
        with httpx.stream(
            "POST", f"{base}v1/chat/completions", json={**LONG, "stream": True}, timeout=30
        ) as response:
            lines.extend(response.iter_lines())

    with live(engine) as base:
        listener = threading.Thread(target=listen, args=[base])
        listener.start()
        wait_until(lambda: engine.pieces > 3)
        began = time.monotonic()
    listener.join(5)
    assert time.monotonic() - began < 2
    assert "stopping" in lines[-2]
    assert not engine.running
