"""A file at a URL as a source."""

from __future__ import annotations

import functools
import gzip
import hashlib

import pytest

from llm.curation.jsonl import JsonLines
from llm.curation.text import TextFiles
from llm.curation.web import WebFile
from llm.types import ConfigError
from tests.conftest import Site
from tests.curation.reading import read, told


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_fetched_once_and_read(site: Site):
    content = gzip.compress(b'{"text": "a", "n": 1}\nbroken\n{"text": "b", "n": 2}\n')
    site.pages["/data/x.jsonl.gz"] = content
    url = site.address + "/data/x.jsonl.gz"
    reader = functools.partial(JsonLines, licence="MIT")
    source = WebFile(url, hashlib.sha256(content).hexdigest(), reader)
    first = source.fingerprint()
    assert site.asked == [], "a fingerprint fetches nothing"
    found = read(source)
    assert found["reason"].to_list() == [None, "broken_json", None]
    assert found["id"].to_list() == ["x.jsonl.gz:1", "x.jsonl.gz:2", "x.jsonl.gz:3"]
    assert found["provenance"].to_list() == [f"{url}:{line}" for line in (1, 2, 3)]
    assert set(found["source"]) == {"x.jsonl.gz"}
    named = WebFile(url, source.sha256, functools.partial(JsonLines, id="n"))
    assert [row[0] for row in told(named)] == ["1", "x.jsonl.gz:2", "2"]
    assert named.fingerprint() != first
    assert len(site.asked) == 1


def test_another_file_is_refused(site: Site):
    site.pages["/x.txt"] = b"not what was promised"
    source = WebFile(site.address + "/x.txt", "0" * 64, TextFiles)
    with pytest.raises(ConfigError) as caught:
        source.parts()
    assert caught.value.key == "sha256"
    with pytest.raises(ConfigError) as caught:
        WebFile(site.address + "/nothing.txt", "0" * 64, TextFiles).parts()
    assert caught.value.key == "url"
