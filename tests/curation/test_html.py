"""Pages become their main text, whatever is done to them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llm.curation.html import Extractor, HtmlFiles, decoded, licence_of
from tests.curation.reading import read, told

SENTENCE = "The members of the committee have agreed that the plan is to be carried out with care, and soon. "
PARAGRAPHS = "".join(f"<p>{number}. {SENTENCE * 3}</p>" for number in range(4))
PAGE = (
    "<html><head><title>News</title><script>var x = '<p>no</p>';</script></head><body>"
    "<nav><ul><li><a href='/'>Home</a></li><li><a href='/shop'>Shop now</a></li></ul></nav>"
    f"<article><h1>A plan</h1>{PARAGRAPHS}</article><footer>All rights reserved</footer></body></html>"
)


def test_main_text(tmp_path: Path):
    (tmp_path / "a.html").write_text(PAGE)
    (found,) = read(HtmlFiles(str(tmp_path), licence="CC0-1.0")).to_dicts()
    assert [line for line in found["text"].split("\n") if line[0] in "0123"] == [
        f"{number}. {SENTENCE * 3}".strip() for number in range(4)
    ]
    assert "Shop now" not in found["text"]
    assert (found["id"], found["licence"], found["reason"], found["domain"]) == (
        "a.html",
        "CC0-1.0",
        None,
        "web",
    )


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<html><body></body></html>", "no_main_text"),
        ("<html><body><script>alert(1)</script></body></html>", "no_main_text"),
        ("<div>" * 10_000 + "deep down" + "</div>" * 10_000, "extraction_fallback"),
        ("<html><body>" + "<p>one of many" * 3000, "extraction_fallback"),
        ("", "empty"),
        ("\0\x01\x02\x03" * 30, "not_text"),
        ("<p>" + "x" * 200_000, "too_large"),
    ],
)
def test_pages_that_are_none(tmp_path: Path, page: str, reason: str):
    (tmp_path / "a.html").write_text(page)
    (found,) = told(
        HtmlFiles(str(tmp_path), max_tags=2500 if "many" in page else 50_000, max_document_bytes=150_000)
    )
    assert found[3] == reason
    assert found[2] == (reason == "extraction_fallback")
    if "deep" in page:
        assert found[1] == "deep down"
    if "many" in page:
        assert found[1].split("\n") == ["one of many"] * 3000


def test_what_stands_behind_a_deep_place_is_not_lost():
    deep = PAGE.replace("<p>1.", "<div>" * 300 + "deep" + "</div>" * 300 + "<p>1.")
    found = Extractor(50_000).extract(deep)
    assert found.reason == "extraction_fallback"
    assert "3. The members" in found.text
    open_tags = "".join(f"<div><p><font>{number}. {SENTENCE * 3}</p></div>" for number in range(300))
    found = Extractor(50_000).extract(PAGE.replace(PARAGRAPHS, open_tags))
    assert found.reason is None
    assert "299. The members" in found.text, "tags that a parser closes make no page deep"


@pytest.mark.parametrize(
    "page",
    ["<![" + "<" * 30 + "\0", "<" * 40_000, "&#x110000; &#xd800;" * 9, "<p" + " a" * 40_000,
     "<script>" * 60_000, "<!--" * 60_000, "<p <p " * 60_000, "<p>" * 50_001 + "&#" + "1" * 5000 + ";"],
    ids=range(8),
)  # fmt: skip
def test_broken_markup_ends_no_run(page: str):
    found = Extractor(50_000).extract(page)
    assert found.keep or found.reason == "no_main_text"
    found.text.encode()


def test_a_failing_extractor_gives_all_visible_text(monkeypatch):
    import trafilatura

    def fail(*_, **__):
        raise RecursionError

    monkeypatch.setattr(trafilatura, "extract", fail)
    found = Extractor(50_000).extract(
        "<p>one <b>and</b>\n two</p><!-- <p>no --><style>p {}</style><div>three<br>four &amp; five</div>"
    )
    assert found == ("one and two\nthree\nfour & five", True, "extraction_fallback")


@pytest.mark.parametrize(
    ("raw", "charset", "text", "reason"),
    [
        ("grün".encode(), "iso-8859-1", "grün", None),
        ("gr\xfcn “x”".encode("cp1252"), "ISO-8859-1", "grün “x”", None),
        (
            b'<meta charset="windows-1251">' + "да".encode("cp1251"),
            None,
            '<meta charset="windows-1251">да',
            None,
        ),
        (b"<meta charset=zlib>a\xfc", None, "<meta charset=zlib>aü", "reencoded"),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本", None),
    ],
)
def test_encodings(raw: bytes, charset: str | None, text: str, reason: str | None):
    assert decoded(raw, charset) == (text, reason)


@pytest.mark.parametrize(
    ("link", "licence"),
    [
        ('<a rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">', "CC-BY-SA-4.0"),
        ("<link href='//creativecommons.org/publicdomain/zero/1.0/' rel='license'>", "CC0-1.0"),
        ('<a href="https://creativecommons.org/licenses/by/4.0/">', None),
        ('<a rel="license" href="https://example.org/licenses/by/4.0/">', None),
    ],
)
def test_licence(link: str, licence: str | None):
    assert licence_of(f"<p>{link}x</a></p>") == licence


def test_looking_for_a_licence_takes_no_longer_than_the_page():
    began = time.perf_counter()
    assert licence_of("<a rel=" * 1000) is None
    assert time.perf_counter() - began < 1
