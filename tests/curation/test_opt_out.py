from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.opt_out import OptOut, normal_url
from llm.curation.pipeline import Curation
from llm.curation.text import TextFiles
from llm.types import ConfigError
from tests.curation.test_steps import corpus

ROBOTS = """\
User-agent: GPTBot
Disallow: /

User-agent: *
Disallow: /private/*.html$
Allow: /private/open.html
"""


def at(*addresses: str | None) -> pl.DataFrame:
    frame = corpus([f"text {n}" for n in range(len(addresses))])
    return frame.with_columns(pl.Series("provenance", addresses, pl.String))


def reasons(step: OptOut, frame: pl.DataFrame) -> list[str | None]:
    judged = judge(pickle.loads(pickle.dumps(step)), frame)
    assert judged["keep"].to_list() == [reason is None for reason in judged["reason"]]
    return judged["reason"].to_list()


def test_lists(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"text 4").hexdigest()
    path = tmp_path / "list.txt"
    path.write_text(
        "# who asked\nid:d0\nurl:https://www.a.org/page/#top  # once\ndomain:b.org\n\n"
        f"c.org\nsha256:{digest.upper()}\n"
    )
    frame = at(
        "file.jsonl:1", "http://A.org/page", "https://x.b.org/", "https://c.org/q", None, "https://ab.org/"
    )
    assert reasons(OptOut(lists=str(path)), frame) == [
        "opt_out_id",
        "opt_out_url",
        "opt_out_domain",
        "opt_out_domain",
        "opt_out_sha256",
        None,
    ]
    matches = judge(OptOut(lists=str(path)), frame)["match"].to_list()
    assert matches == ["d0", "a.org/page", "b.org", "c.org", digest, None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("domain:https://a.org", "opt_out_domain"),
        ("domain:a.org/", "opt_out_domain"),
        ("domain: *.A.org.", "opt_out_domain"),
        ("a.org/", "opt_out_domain"),
        ("a.org/page", "opt_out_url"),
        ("a.org:443/page/", "opt_out_url"),
        ("www.a.org/page#top", "opt_out_url"),
        ("url:a.org/page", "opt_out_url"),
        ("http://a.org/page", "opt_out_url"),
        ("//a.org/page", "opt_out_url"),
    ],
)
def test_ways_to_write_a_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(line + "\n")
    frame = at("https://a.org/page", "https://b.org/page?https://a.org/page")
    assert reasons(OptOut(lists=str(path)), frame) == [reason, None]


@pytest.mark.parametrize("line", ["sha256:abc", "domain:a.org/page", "domain:", "host:a.org", "a/b", "word"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"domain:a.org\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        OptOut(lists=str(path)).prepare(lambda _: None)
    assert caught.value.key == "lists"


def test_robots(tmp_path: Path) -> None:
    pytest.importorskip("protego")
    folder = tmp_path / "robots"
    (folder / "a.org").mkdir(parents=True)
    (folder / "a.org" / "robots.txt").write_text(ROBOTS)
    (folder / "b.org.txt").write_bytes(b"")
    (folder / "c.org").mkdir()
    (folder / "c.org" / "ai.txt").write_text("User-Agent: *\nDisallow: /\n")
    frame = at(
        "https://a.org/x",
        "https://a.org/private/p.html",
        "https://a.org/private/open.html",
        "https://A.org/private/p.html?q",
        "https://b.org/x",
        "https://c.org/x",
        "https://d.org/x",
        "a.org.jsonl:7",
        None,
        "https://[broken",
    )
    # GPTBot has a group of its own, CCBot follows the one for all: there the longest rule counts
    assert reasons(OptOut(str(folder), ["GPTBot"]), frame) == [
        *["robots_GPTBot"] * 4,
        *(None, "robots_GPTBot"),
        *[None] * 4,
    ]
    assert reasons(OptOut(str(folder), ["CCBot"]), frame) == [
        *(None, "robots_CCBot", None, None, None, "robots_CCBot"),
        *[None] * 4,
    ]
    lines = tmp_path / "robots.jsonl"
    lines.write_text(json.dumps({"host": "A.org", "robots": ROBOTS}) + "\n")
    assert reasons(OptOut(str(lines), ["CCBot"]), frame)[:3] == [None, "robots_CCBot", None]
    with_url = at(None).with_columns(url=pl.lit("https://a.org/x"))
    assert reasons(OptOut(str(lines), ["GPTBot"]), with_url) == ["robots_GPTBot"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        OptOut(str(tmp_path / "empty")).prepare(lambda _: None)
    assert caught.value.key == "robots"


def test_what_is_read_is_part_of_the_key(tmp_path: Path) -> None:
    path, folder = tmp_path / "list.txt", tmp_path / "robots"
    path.write_text("domain:a.org\n")
    (folder / "a.org").mkdir(parents=True)
    (folder / "a.org" / "robots.txt").write_text(ROBOTS)
    step = OptOut(str(folder), lists=str(path))
    (tmp_path / "text.txt").write_text("a text")
    curation = Curation({"files": TextFiles(str(tmp_path / "text.txt"))}, {"opt_out": step})
    seen = [(step.fingerprint(), curation.fingerprint(), curation.marks()["opt_out"])]
    for change in (
        lambda: path.write_text("domain:a.org\ndomain:b.org\n"),
        lambda: (folder / "a.org" / "robots.txt").write_text("User-agent: *\nDisallow: /\n"),
        lambda: (folder / "a.org").rename(folder / "b.org"),
    ):
        change()
        seen.append((step.fingerprint(), curation.fingerprint(), curation.marks()["opt_out"]))
    for column in zip(*seen, strict=True):
        assert len(set(column)) == len(seen)
    path.unlink()
    with pytest.raises(ConfigError) as caught:
        curation.fingerprint()
    assert caught.value.key == "steps.opt_out.lists"


def test_a_list_is_read_anew_by_a_later_run(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    frame = at("https://a.org/x", "https://b.org/x")
    for domain, kept in (("a.org", [False, True]), ("b.org", [True, False])):
        path.write_text(f"domain:{domain}\n")
        step = OptOut(lists=str(path))
        step.prepare(lambda _: None)
        assert judge(step, frame)["keep"].to_list() == kept


def test_header() -> None:
    frame = at(None, None, None).with_columns(tag=pl.Series(["max-snippet:1, NoAI", "noindex", None]))
    assert reasons(OptOut(header_column="tag"), frame) == ["opt_out_header", None, None]
    assert reasons(OptOut(header_column="not there"), frame) == [None] * 3


def test_addresses() -> None:
    same = ["https://www.a.org/b/", "http://A.ORG/b#c", "https://a.org:443/b"]
    assert {normal_url(one) for one in same} == {"a.org/b"}
    assert (
        len({normal_url(one) for one in ["https://a.org/b?c", "https://a.org/B", "https://a.org:8080/b"]})
        == 3
    )
    assert normal_url("a.org/b") is None
