"""How text is written for a classifier."""

from __future__ import annotations

import polars as pl

from llm.classifiers.normalisation import Normalisation


def written(text: str, **settings) -> str:
    return Normalisation(**settings)(pl.Series([text]))[0]


def test_words_and_marks():
    assert written("Don\u2019t\n SHOUT,  \u00dcber-all!") == "don't shout , \u00fcber - all !"
    assert written("A b\tc.", lower=False, split_punctuation=False) == "A b c."
    assert written("abcdef", max_chars=3) == "abc"
    assert written(" \n\t") == ""


def test_messages_lose_what_marks_them_as_such():
    message = "!!! RT @some_one: &quot;Look&quot; https://t.co/x1 &amp; www.example.org/a?b=c SMART"
    assert written(message, messages=True) == '! ! ! : " look " & smart'


def test_nothing_in_a_text_is_a_command_to_fasttext():
    for split in (True, False):
        line = written("one </s> two __label__0 </S> __LABEL__1 three", split_punctuation=split)
        assert "</s>" not in line
        assert "__label__" not in line
        assert "three" in line
