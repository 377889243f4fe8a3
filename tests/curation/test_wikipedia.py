"""Wikipedia's dumps: articles as plain text, other pages told of."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from llm.curation.wikipedia import WikipediaDump
from llm.curation.wikitext import plain_text
from tests.curation.reading import read, told

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
<siteinfo><sitename>Wikipedia</sitename><dbname>dewiki</dbname>
<base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
<namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>
"""


def page(number: int, title: str, text: str, more: str = "", ns: int = 0) -> str:
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>{number}</id>{more}<revision><id>9{number}</id>"
        f"<contributor><username>U</username><id>77</id></contributor><model>wikitext</model>"
        f'<text bytes="1" xml:space="preserve">{text}</text></revision></page>\n'
    )


DUMP = (
    HEAD
    + page(
        1,
        "Alan Smithee",
        "'''Alan''' ist ein [[Name|erfundener]] &amp;amp; guter.\n[[Datei:x.jpg|mini|Ein [[Bild]]]]",
    )
    + page(2, "Weiter", "#REDIRECT [[Alan]]", '<redirect title="Alan Smithee" />')
    + page(3, "Diskussion:Alan", "Wer?", ns=1)
    + page(4, "Leer", "{{Vorlage}}\n[[Kategorie:Alles]]")
    + page(5, "Groß", "x" * 5000)
    + page(6, "AC/DC & Co.".replace("&", "&amp;"), "Eine Band.")
)


def test_pages(tmp_path: Path):
    (tmp_path / "dewiki-pages-articles.xml.bz2").write_bytes(bz2.compress((DUMP + "</mediawiki>").encode()))
    source = WikipediaDump(str(tmp_path), max_document_bytes=4000)
    found = read(source)
    assert found["id"].to_list() == [f"dewiki:{number}" for number in range(1, 7)]
    assert found["reason"].to_list() == [None, "redirect", "namespace", "empty", "too_large", None]
    assert found["text"][0] == "Alan Smithee\n\nAlan ist ein erfundener & guter."
    assert found["provenance"][5] == "https://de.wikipedia.org/wiki/AC/DC_%26_Co."
    assert found["score"][4] == 5000
    assert set(found["licence"]) == {"CC-BY-SA-4.0"}
    plain = WikipediaDump(str(tmp_path), with_title=False, licence=None)
    assert plain.documents().collect()["text"][-1] == "Eine Band."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bz2.compress(DUMP.encode())[:-30], "truncated"),
        (bz2.compress((DUMP + "<page><title>x</page>").encode()), "broken_xml"),
        (bz2.compress(DUMP.encode()), "broken_xml"),
    ],
)
def test_damaged_dumps_keep_the_pages_before(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "x.xml.bz2").write_bytes(content)
    found = told(WikipediaDump(str(tmp_path)))
    assert found[-1] == (f"x.xml.bz2#{reason}", "", False, reason)
    if reason != "truncated":  # a small dump is one block of bzip2
        assert [row[0] for row in found if row[2]] == ["dewiki:1", "dewiki:5", "dewiki:6"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("A '''bold''' [[cat]]s, [[dog|dogs]], [http://x.org link].", "A bold cats, dogs, link."),
        ("Word<ref name=x>A [[note]]</ref>, and<!-- a comment --> more<br/>line", "Word, and more\nline"),
        ("one\n&#30;two \x1ethree", "one\ntwo three"),
        ("Athens ({{lang-grc|Ἀθῆναι}}; {{IPA|x}}) lies ({{IPA|y}}) there.", "Athens (Ἀθῆναι; ) lies there."),
        ("* one\n* two\n#three\n:four", "- one\n- two\n- three\nfour"),
        ("x\n{| class=a\n! h\n|-\n| a || b\n|}\ny", "x\n\ny"),
        ("Text.\n== Kept ==\nmore\n=== No ===\n{{x}}\n== See ==\n=== Deep ===\n[[a]]\n== Gone ==\n<ref/>",
         "Text.\n\nKept\n\nmore\n\nSee\n\nDeep\n\na"),
        ("[[File:a.jpg|thumb|A [[cat]]]]B[[Category:C]][[:Category:D]][[de:E]]__NOTOC__", "BCategory:D"),
        ("a&nbsp;b &mdash; c e\u0301 \u05e9\u05dc", "a\xa0b — c e\u0301 \u05e9\u05dc"),
        ("[[File:" * 2000, None),
        ("{{" * 3000, None),
        ("", ""),
    ],
)  # fmt: skip
def test_markup(markup: str, text: str | None):
    found = plain_text(markup)
    if text is None:
        assert found is None or isinstance(found, str), "whatever it is, it ends"
    else:
        assert found == text


@pytest.mark.parametrize("markup", ["[http://a ", "[mailto:a ", "<b a="])
def test_what_nothing_closes_is_not_parsed(markup: str):
    assert plain_text(markup * 1600) is None
    assert plain_text(f"a {markup}") is not None
    assert plain_text("[[File:a|[http://b c]]][[d:e]]" * 600) is not None


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("{{", "}}"), ("[[", "]]"), ("{|", "|}"), ("[http://b ", "]"), ("<b>", "</b>")],
)
def test_what_closes_nothing_makes_up_for_no_opening(opening: str, closing: str):
    assert plain_text(f"{closing} " * 600 + f"{opening}a " * 600) is None
    assert plain_text(f"{opening}a {closing} " * 600) is not None
