from __future__ import annotations

import sys
import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.curation.unicode import Unicode, _looks_wrong
from llm.types import ConfigError
from tests.curation.judging import judged

QUOTE = "\N{RIGHT SINGLE QUOTATION MARK}"


def repair(text: str, **settings) -> str:
    return Unicode(**settings).repair(pl.Series([text])).item()


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (f"it{QUOTE}s", f"it{QUOTE}s"),
        (f"don{QUOTE}t".encode().decode("cp1252"), f"don{QUOTE}t"),
        ("schön".encode().decode("latin-1") + f"\nund it{QUOTE}s", f"schön\nund it{QUOTE}s"),
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        ("a  \nb\t\n\n c ", "a\nb\n\n c"),
        ("a\0b\x07c\tx", "abc\tx"),
        ("\ufeffso\u00adft zero\u200bwidth\u2060", "soft zerowidth"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200b\u0301", "\u00e9"),
        ("", ""),
        ("!?", "!?"),
        ("日本語の文章です。", "日本語の文章です。"),
    ],
)
def test_repairs(text, repaired):
    assert repair(text) == repaired


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # noqa: RUF001  (Persian: a joiner keeps letters apart)
        "क्\u200dष",  # Hindi
        "👩\u200d💻 ❤\ufe0f",
        "\u200fעברית\u200e (abc) \u2067x\u2069",  # noqa: RUF001
        "ภาษา\u200bไทย",  # Thai: the only sign of a word's end
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "ﬁ ² Ａ",  # noqa: RUF001  (compatibility characters, which NFC keeps)
    ],
)
def test_what_scripts_need_stays(text):
    assert repair(text) == text


def test_settings():
    assert repair("ﬁ ²", form="NFKC") == "fi 2"
    assert repair("e\u0301", form="none") == "e\u0301"
    assert repair("a\u200b", invisible=False) == "a\u200b"
    assert repair("a ", trailing_spaces=False) == "a "
    assert repair("schÃ¶n", mojibake=False) == "schÃ¶n"
    assert repair("x\U000e0041\U000e0042") == "x", "hidden tags go"


def test_the_ledger_hears_of_what_was_altered():
    frame = judged(Unicode(), ["plain", "e\u0301", f"it{QUOTE}s", ""])
    assert frame["reason"].to_list() == [None, "unicode_repaired", None, None]
    assert frame["keep"].all()


CHARACTERS = st.sampled_from(
    [*"aé \n\r\tÃ©â€\xa0\xadå\u0392Œ°£½│\u0412\u0402日\u200b\u0301\u200d\x00\u2028", QUOTE, "\x9d"]
)
TEXTS = st.lists(CHARACTERS, max_size=12).map("".join)


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=4))
def test_the_pattern_sees_what_ftfy_sees(texts):
    from ftfy.badness import is_bad

    assert _looks_wrong(pl.Series(texts, dtype=pl.String)).to_list() == [is_bad(text) for text in texts]


@settings(max_examples=50)
@given(TEXTS)
def test_a_repaired_text_needs_nothing(text):
    repaired = repair(text, mojibake=False)
    assert repair(repaired, mojibake=False) == repaired
    assert unicodedata.is_normalized("NFC", repaired)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in repaired)


def test_without_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError) as caught:
        Unicode().prepare(print)
    assert caught.value.key == "mojibake"
    step = Unicode(mojibake=False)
    step.prepare(print)
    assert step.repair(pl.Series(["a "])).to_list() == ["a"]
