from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.curation import words
from llm.curation.repetition import DUPLICATE, TOP, GopherRepetition
from tests.curation.judging import measures, reasons


def distinct(n: int, start: int = 0) -> list[str]:
    """Different words of four letters."""
    letters = "abcdefghij"
    return ["".join(letters[int(digit)] for digit in f"{i:04}") for i in range(start, start + n)]


def reference(text: str) -> dict[str, float]:
    """Table A1's n-grams in plain Python."""
    found = words.find([text])
    tokens = [f"\n{text}"[start:end] for start, end in zip(found.starts, found.ends, strict=True)]
    expected = {}
    for n in TOP:
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        gram, count = Counter(grams).most_common(1)[0] if grams else ((), 0)
        expected[f"top_{n}_gram"] = count * len(" ".join(gram)) / len(text) if count > 1 else 0
    for n in DUPLICATE:
        seen, chars, place = set(), 0, 0
        while place + n <= len(tokens):
            gram = tuple(tokens[place : place + n])
            if gram in seen:
                chars += len("".join(gram))
                place += n
            else:
                seen.add(gram)
                place += 1
        expected[f"duplicate_{n}_grams"] = chars / len(text) if text else 0
    return expected


def check(texts: list[str]) -> None:
    rows = GopherRepetition().tag(pl.Series(texts, dtype=pl.String)).rows(named=True)
    for text, row in zip(texts, rows, strict=True):
        for name, value in reference(text).items():
            assert row[f"_{name}"] == pytest.approx(value), (name, text)


REPETITIVE = st.lists(st.sampled_from(["a", "bb", "ccc.", "it's", "日本"]), max_size=40).map(" ".join)


@settings(max_examples=30)
@given(st.lists(REPETITIVE, max_size=5))
def test_ngrams_against_plain_python(texts):
    check(texts)


def test_ngrams_of_long_texts():
    text = " ".join(distinct(300) + distinct(40, 20) + distinct(300, 100) + ["x"] * 30)
    check([text, "", "one", text[::-1], " ".join(distinct(11) * 3)])


@pytest.mark.parametrize("n", [*TOP, *DUPLICATE])
def test_each_ngram_rule_at_its_bound(n):
    name = f"top_{n}_gram" if n in TOP else f"duplicate_{n}_grams"
    text = " ".join(distinct(n) * 3 + distinct(50, 100))
    score = measures(GopherRepetition(), text)[name]
    assert score > 0

    def step(bound: float) -> GopherRepetition:
        top = [bound if k == n else 1.0 for k in TOP]
        duplicate = [bound if k == n else 1.0 for k in DUPLICATE]
        return GopherRepetition(max_top_ngram_chars=top, max_duplicate_ngram_chars=duplicate)

    assert reasons(step(score), text) == [None]
    assert reasons(step(score - 1e-9), text) == [name]


def test_papers_bounds():
    bounds = dict(zip(GopherRepetition().attributes, GopherRepetition().bounds, strict=True))
    assert [bounds[f"_top_{n}_gram"] for n in TOP] == [0.2, 0.18, 0.16]
    assert [bounds[f"_duplicate_{n}_grams"] for n in DUPLICATE] == [0.15, 0.14, 0.13, 0.12, 0.11, 0.1]


def test_lines_and_paragraphs():
    lines = [f"line number {word}" for word in distinct(7)]
    loose = {"max_top_ngram_chars": [1, 1, 1], "max_duplicate_ngram_chars": [1] * 6}
    step = GopherRepetition(max_duplicate_line_chars=1, max_duplicate_paragraph_chars=1, **loose)
    assert reasons(step, "\n".join([*lines, "so", "so", "so", "so"])) == [None]
    assert reasons(step, "\n".join([*lines[:6], "so", "so", "so", "so"])) == [None]
    assert reasons(step, "\n".join([*lines[:5], "so", "so", "so", "so"])) == ["duplicate_lines"]
    paragraphs = "\n\n".join(["a\nb\nc\nd\ne\nf\ng\nh", "i", "i", "j"])
    assert measures(step, paragraphs)["duplicate_paragraphs"] == 0.25
    assert measures(step, paragraphs)["duplicate_lines"] == pytest.approx(1 / 11)


def test_what_occurs_once_is_no_repetition():
    assert reasons(GopherRepetition(), "", "Hello world", "!?", "日本語") == [None] * 4
    assert reasons(GopherRepetition(), "Hello world " * 3) == ["top_2_gram"]


def test_texts_do_not_repeat_each_other():
    text = " ".join(distinct(30))
    assert reasons(GopherRepetition(), text, text, text) == [None] * 3


def test_each_text_alone_and_among_others():
    # as many texts as there are code points of punctuation, each with marks that stand alone
    texts = [" ".join(f"{word} {mark}" for word in distinct(6) * 2 for mark in ",.:") for _ in range(64)]
    texts = [text[number:] for number, text in enumerate(texts)]
    step = GopherRepetition()
    together = step.tag(pl.Series(texts))
    assert together.equals(pl.concat([step.tag(pl.Series([text])) for text in texts]))
