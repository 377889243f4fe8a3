"""One of several equal documents stays; what is equal, and which of them."""

from __future__ import annotations

import random

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.exact_dedup import ExactDedup
from llm.types import ConfigError
from tests.curation.corpora import documents, judge_in_shards


def test_ignores_case_space_and_punctuation():
    frame = documents(["Hello, world!", "hello   WORLD", "other", "!!!", "???", "!!!"])
    judged = judge(ExactDedup(), frame)
    assert judged.filter("keep")["id"].to_list() == ["d0", "d2", "d3", "d4"]
    assert judged.filter(~pl.col("keep")).select("id", "match", "reason").rows() == [
        ("d1", "d0", "exact_duplicate"),
        ("d5", "d3", "exact_duplicate"),
    ]
    exact = judge(ExactDedup(normalise=False), frame)
    assert exact["keep"].to_list() == [True, True, True, True, True, False]


@pytest.mark.parametrize(
    ("texts", "keep"),
    [
        (["caf\u00e9", "cafe\u0301", "cafe"], [True, False, True]),  # composed or not, but not without accent
        (["कि", "की", "कि।"], [True, True, False]),  # vowel signs are marks and tell words apart
        (["שלום עולם", "שלום, עולם!", "שָׁלוֹם"], [True, False, True]),
        (["Straße", "STRASSE", "straße"], [True, True, False]),
        (["日本語", "日本語。", "日本"], [True, False, True]),
        (["a\r\nb", "a\nb", "a b", "ab"], [True, False, False, True]),
        (["", "", " ", "\n", "\n"], [True, False, True, True, False]),
        (["x=1", "x-1", "x\u20131"], [True, False, False]),
        (["a_b", "a b", "a\0b"], [True, False, False]),
        (["١٢", "12", "½"], [True, True, True]),
        (["🙂", "🙃", "🙂"], [True, True, False]),
    ],
)
def test_what_is_equal(texts: list[str], keep: list[bool]):
    assert judge(ExactDedup(), documents(texts))["keep"].to_list() == keep


@pytest.mark.parametrize("keep", ["first", "longest", "best"])
def test_any_shards_the_same_as_a_plain_search(keep: str, tmp_path):
    rng = random.Random(1)
    texts = [rng.choice(["a b", "a, b", "A b!!!", "c", "c ", "d", ""]) for _ in range(60)]
    worth = [rng.choice([None, 0.25, 0.5, float("nan"), -1.0]) for _ in texts]
    frame = documents(texts).with_columns(pl.Series("quality", worth, pl.Float64))
    step = ExactDedup(keep=keep, by="quality" if keep == "best" else None)

    def value(i: int) -> float:
        known = worth[i] is not None and worth[i] == worth[i]
        return {"first": 0, "longest": len(texts[i]), "best": worth[i] if known else -9}[keep]

    groups: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(
            " ".join(text.lower().replace(",", "").replace("!", "").split()) or text, []
        ).append(i)
    stays = {i: max(group, key=lambda i: (value(i), -i)) for group in groups.values() for i in group}
    one = judge_in_shards(step, frame, [], tmp_path / "one")
    assert one["match"].to_list() == [None if stays[i] == i else f"d{stays[i]}" for i in range(len(texts))]
    assert one["keep"].to_list() == [stays[i] == i for i in range(len(texts))]
    assert judge_in_shards(step, frame, [20, 0, 7, 13], tmp_path / "many").equals(one)


def test_bad_settings():
    with pytest.raises(ConfigError) as caught:
        ExactDedup(keep="best")
    assert caught.value.key == "by"
    with pytest.raises(ConfigError) as caught:
        ExactDedup(by="score")
    assert caught.value.key == "by"
    with pytest.raises(ConfigError, match="no such column; there are: id, text"):
        judge(ExactDedup(keep="best", by="quality"), documents(["a"]))
    with pytest.raises(ConfigError, match="not a numeric column"):
        judge(ExactDedup(keep="best", by="source"), documents(["a"]))
