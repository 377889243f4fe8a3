"""Downloads from a real server: kept when right, refused and not kept when wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llm.files import cache_directory
from llm.runs.download import fetch
from llm.types import ConfigError
from tests.conftest import Site

CONTENT = b"To be, or not to be\n" * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_file_is_fetched_once(site: Site, tmp_path: Path) -> None:
    site.pages["/input.txt"] = CONTENT
    cache = tmp_path / "cache"
    first = fetch(site.address + "/input.txt", SHA256, cache)
    assert first.read_bytes() == CONTENT
    assert first.name.endswith("-input.txt")
    assert fetch(site.address + "/input.txt", SHA256, cache) == first
    assert site.asked == ["/input.txt"]
    assert list(cache.iterdir()) == [first]


def test_a_damaged_cache_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.pages["/input.txt"] = CONTENT
    file = fetch(site.address + "/input.txt", SHA256, tmp_path)
    file.write_bytes(CONTENT[:100])
    assert fetch(site.address + "/input.txt", SHA256, tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_another_sha256_is_refused_and_nothing_is_kept(site: Site, tmp_path: Path) -> None:
    site.pages["/input.txt"] = CONTENT + b"!"
    with pytest.raises(ConfigError, match=hashlib.sha256(CONTENT + b"!").hexdigest()) as caught:
        fetch(site.address + "/input.txt", SHA256, tmp_path)
    assert (caught.value.key, caught.value.value) == ("sha256", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give `path`") as caught:
        fetch(site.address + "/nothing", SHA256, tmp_path)
    assert caught.value.key == "url"


def test_a_connection_that_ends_early(site: Site, tmp_path: Path) -> None:
    site.pages["/input.txt"] = CONTENT
    site.claims_bytes = len(CONTENT) + 1000
    with pytest.raises(ConfigError, match="of 101,000 bytes") as caught:
        fetch(site.address + "/input.txt", SHA256, tmp_path)
    assert caught.value.key == "url"
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be fetched") as caught:
        fetch("http://127.0.0.1:9/x", SHA256, tmp_path)
    assert caught.value.key == "url"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "input.txt"])
def test_only_the_web(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="http"):
        fetch(url, SHA256, tmp_path)


def test_the_cache_is_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "llm-experiments"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache/llm-experiments"
