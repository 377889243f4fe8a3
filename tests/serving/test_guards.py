"""Who may talk to the server from a browser."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from llm.serving.app import Api
from llm.serving.guards import host_name
from llm.serving.settings import Serving
from tests.serving.conftest import FakeEngine


@pytest.fixture
def client(engine: FakeEngine) -> TestClient:
    serving = Serving(allowed_hosts=["my-box.local"], allowed_origins=["http://localhost:5173"])
    return TestClient(Api(engine, serving).app, base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("header", "name"),
    [("127.0.0.1:8000", "127.0.0.1"), ("LocalHost", "localhost"), ("[::1]:8000", "::1"), ("", ""),
     ("a@localhost", ""), ("localhost/evil", ""), ("[::1", ""), ("localhost:port", "localhost")],
)  # fmt: skip
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:9", "MY-BOX.local:80"])
def test_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "0.0.0.0"]
)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/health", "/metrics"])
def test_a_rebound_name_is_refused(client: TestClient, host: str, path: str) -> None:
    response = client.get(path, headers={"host": host})
    assert response.status_code == 403
    assert host in response.json()["error"]["message"]


def test_pages_of_other_sites_are_refused(client: TestClient, engine: FakeEngine) -> None:
    body = {"prompt": "a"}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
        refused = client.post("/v1/completions", json=body, headers={"origin": origin})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert engine.asked == []
    own = client.post("/v1/completions", json=body, headers={"origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_cors_only_for_origins_that_are_allowed(client: TestClient, engine: FakeEngine) -> None:
    ask = {"origin": "http://localhost:5173", "access-control-request-method": "POST",
           "access-control-request-headers": "content-type"}  # fmt: skip
    preflight = client.options("/v1/completions", headers=ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:5173"
    plain = TestClient(Api(engine, Serving()).app, base_url="http://127.0.0.1:8000")
    assert plain.options("/v1/completions", headers=ask).status_code == 403


def test_every_answer_carries_the_protective_headers(client: TestClient) -> None:
    for response in (client.get("/"), client.get("/v1/models"), client.get("/nope")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
