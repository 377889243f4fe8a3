from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.curation import words

QUOTE = "\N{RIGHT SINGLE QUOTATION MARK}"


def cut(text: str) -> list[str]:
    found = words.find([text])
    joined = f"\n{text}\n"
    return [joined[start:end] for start, end in zip(found.starts, found.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t ", []),
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("(well-known)", ["(", "well", "-", "known", ")"]),
        ("covid-19 is", ["covid-19", "is"]),
        ("1990-2000", ["1990", "-", "2000"]),
        ("10,000 or 3.14 at 12:30", ["10,000", "or", "3.14", "at", "12:30"]),
        ("don't it's we'll o'clock", ["don", "'t", "it", "'s", "we", "'ll", "o'clock"]),
        (f"they{QUOTE}re", ["they", f"{QUOTE}re"]),
        (
            "Mr. Fox met J. Doe of the U.S. at 5 p.m.",
            ["Mr.", "Fox", "met", "J.", "Doe", "of", "the", "U.S.", "at", "5", "p.m."],
        ),
        ("the end.The next", ["the", "end", ".", "The", "next"]),
        ("wait... what…", ["wait", "...", "what", "…"]),
        ("yes--no", ["yes", "--", "no"]),
        ("!!! ??", ["!", "!", "!", "?", "?"]),
        ("a@b.com www.x.org", ["a@b.com", "www.x.org"]),
        ("US$40 and 30mph", ["US$", "40", "and", "30", "mph"]),
        ("שלום, עולם", ["שלום", ",", "עולם"]),
        ("cafe\u0301 a\u200db", ["cafe\u0301", "a\u200db"]),
        ("日本語の文章です。", ["日本語の文章です", "。"]),
        ("ok👍🏽yes", ["ok", "👍", "🏽", "yes"]),
    ],
)
def test_tokens(text, tokens):
    assert cut(text) == tokens


ALPHABET = st.sampled_from([*"aZé\u0301日5 .,-'…\n$#👍(\u200d", QUOTE, "don't", "U.S.", "..."])
TEXTS = st.lists(st.lists(ALPHABET, max_size=12).map("".join), max_size=6)


@settings(max_examples=30)
@given(TEXTS)
def test_tokens_hold_every_visible_character_once(texts):
    for text in texts:
        assert "".join(cut(text)) == "".join(text.split())


@settings(max_examples=30)
@given(TEXTS, st.integers(1, 20))
def test_a_text_does_not_depend_on_its_neighbours(texts, n_chars):
    together = words.find(texts)
    counts = np.diff(together.first).tolist()
    assert counts == [len(cut(text)) for text in texts]
    apart = [count for block in words.blocks(texts, n_chars) for count in np.diff(block.first).tolist()]
    assert apart == counts


@settings(max_examples=30)
@given(TEXTS)
def test_holding_looks_through_the_whole_token(texts):
    found = words.find(texts)
    joined = "\n".join(["", *texts, ""])
    expected = [
        any(character.isalpha() for character in joined[start:end])
        for start, end in zip(found.starts, found.ends, strict=True)
    ]
    assert found.holding(words.LETTER, words.CAPITAL).tolist() == expected
    assert found.per_text(found.ends - found.starts).tolist() == [len("".join(t.split())) for t in texts]
