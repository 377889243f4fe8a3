"""Lines and paragraphs that stood before go; everything else stays byte for byte."""

from __future__ import annotations

import random

import polars as pl
import pytest

from llm.curation import hashing
from llm.curation.base import judge
from llm.curation.line_dedup import LineDedup, ParagraphDedup
from llm.curation.pieces import pieces, without
from tests.curation.corpora import documents, judge_in_shards

LINES = [
    "One two three.",
    "one TWO three!",
    "Другая строка",
    "שורה אחרת",
    "cafe\u0301 noir",
    "café noir",
    "---",
    "",
]


@pytest.mark.parametrize("step", [LineDedup, ParagraphDedup])
def test_any_shards_the_same_as_a_plain_search(step: type[LineDedup], tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "ROWS_AT_ONCE", 20)
    rng = random.Random(2)
    gap = "\n" if step is LineDedup else "\n\n"
    texts = [gap.join(rng.choice(LINES) for _ in range(rng.randint(0, 6))) for _ in range(40)]
    same = {0: "one two three", 1: "one two three", 4: "café noir", 5: "café noir"}
    seen: set[str] = set()
    want = []
    for text in texts:
        left = []
        for line in text.split(gap):
            known = {LINES[i]: form for i, form in same.items()}.get(line, line)
            if not known or known not in seen:
                left.append(line)
            seen.add(known)
        want.append(left)
    judge_many = step(min_chars=0, min_left=0.0)
    one = judge_in_shards(judge_many, documents(texts), [], tmp_path / "one")
    for text, kept, line in zip(one["text"], one["keep"], want, strict=True):
        left = [part for part in line if part]
        assert [part for part in text.split(gap) if part] == left or (not kept and not left)
    assert judge_in_shards(judge_many, documents(texts), [11, 0, 5], tmp_path / "many").equals(one)
    assert one["reason"].drop_nulls().n_unique() == 2


def test_shares_reasons_and_short_lines():
    banner = "We use cookies to make this site better for you."
    texts = [
        f"{banner}\nFirst page with words of its own\nMenu",
        f"{banner}\nSecond page, with other words in it\nMenu",
        f"Menu\n{banner}",
        "\n".join([banner.upper(), banner]),
        f"{banner}\n",
    ]
    judged = judge(LineDedup(min_chars=10, min_left=0.2), documents(texts))
    assert judged["text"].to_list() == [
        texts[0],
        "Second page, with other words in it\nMenu",
        *texts[2:],
    ]
    assert judged["keep"].to_list() == [True, True, False, False, False]
    assert judged["reason"].to_list() == [None, "duplicate_lines", *["mostly_duplicate_lines"] * 3]
    assert judged["score"][1] == pytest.approx((len(banner) + 1) / len(texts[1]))
    assert judged["score"][3:].to_list() == [1.0, 1.0]
    assert judge(LineDedup(min_chars=10, min_left=0.0), documents(texts))["text"][2] == "Menu"


def test_domains_digits_and_line_ends():
    texts = ["row number 11\r\nand more of it\r\n", "row number 12\r\nand more of it\r\n", "row number 11"]
    step = LineDedup(min_chars=5, min_left=0.0)
    assert judge(step, documents(texts))["text"].to_list()[:2] == [texts[0], "row number 12"]
    masked = judge(LineDedup(min_chars=5, min_left=0.0, mask_digits=True), documents(texts))
    assert masked["keep"].to_list() == [True, False, False]
    spared = judge(
        LineDedup(min_chars=5, except_domains=["code"]), documents(texts, ["text", "code", "code"])
    )
    assert spared["keep"].all()
    assert spared["reason"].null_count() == 3


def test_paragraphs_are_compared_across_their_line_breaks():
    texts = [
        "A paragraph of\ntwo lines.\n\nAnother one.",
        "New.\r\n \r\na paragraph\r\nof two lines.\r\n\r\nEnd.",
    ]
    judged = judge(ParagraphDedup(min_chars=5), documents(texts))
    assert judged["text"].to_list() == [texts[0], "New.\r\n \r\nEnd."]
    assert judged["reason"][1] == "duplicate_paragraphs"


@pytest.mark.parametrize("grain", ["line", "paragraph"])
@pytest.mark.parametrize(
    "text", ["", "\n", "\n\n\n", "a", "a\n", "a\r\n\r\nb\n \n\n  c\x0bd\u2028e", "\n a \n\n\n"]
)
def test_pieces_joined_are_the_text(text: str, grain: str):
    assert "".join(pieces(text, grain)) == text
    assert without(text, grain, set()) == text
    assert without(text, grain, set(range(9))) == ""


def test_no_documents_and_empty_ones():
    for texts in ([], ["", "\n\n\n", "\r\n"]):
        judged = judge(LineDedup(min_chars=0), documents(texts))
        assert judged["keep"].all()
        assert judged["text"].to_list() == texts
        assert judged.schema["score"] == pl.Float64
