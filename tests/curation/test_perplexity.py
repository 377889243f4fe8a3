"""Bounds and buckets of perplexity, with a scorer that needs no model."""

from __future__ import annotations

import math

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.perplexity import Perplexity
from llm.curation.top_share import TopShare
from llm.evaluation.text_scorer import CheckpointScorer
from llm.types import ConfigError, TextScore
from tests.curation.test_steps import corpus


class Told:
    """Finds a text as surprising as the number in it says, per token of four bytes."""

    def prepare(self) -> None: ...

    def score(self, texts):
        return [
            TextScore(math.log(float(text)) * 3, 3, 12) if text else TextScore(0.0, 0, 0) for text in texts
        ]

    def fingerprint(self) -> str:
        return "told"


FRAME = corpus(["5", "50", "500", "5000", "", "9000"], ["text"] * 5 + ["code"])


def test_a_mistake_of_the_scorer_names_its_place(tmp_path):
    step = TopShare(Perplexity(CheckpointScorer(str(tmp_path / "none"))), "perplexity")
    with pytest.raises(ConfigError) as caught:
        step.prepare(print)
    assert caught.value.key == "tagger.scorer.checkpoint"


def test_measures():
    found = Perplexity(Told()).tag(pl.Series(["5", ""]))
    assert found.row(0) == pytest.approx((5, 3 * math.log2(5) / 12), rel=1e-3)
    assert found.row(1) == (None, None)
    huge = Perplexity(Told()).tag(pl.Series(["1e300"]))["perplexity"]
    assert huge.is_finite().all(), "JSON and parquet hold it"


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({}, [None] * 6),
        ({"min_perplexity": 10}, ["low_perplexity", None, None, None, None, None]),
        ({"max_perplexity": 1000}, [None, None, None, "high_perplexity", None, None]),
        (
            {"min_perplexity": 10, "max_perplexity": 100},
            ["low_perplexity", None, "high_perplexity", "high_perplexity", None, None],
        ),
        (
            {"boundaries": [60, 600], "buckets": ["middle"]},
            ["perplexity_head", "perplexity_head", None, "perplexity_tail", None, None],
        ),
    ],
)
def test_bounds(settings: dict, reasons: list[str | None]):
    judged = judge(Perplexity(Told(), except_domains=["code"], **settings), FRAME)
    assert judged["reason"].to_list() == reasons
    assert judged["keep"].to_list() == [reason is None for reason in reasons]
    assert judged["score"].to_list() == judged["perplexity"].to_list()


def test_buckets_stay_with_the_document():
    judged = judge(Perplexity(Told(), boundaries=[60, 600]), FRAME)
    assert judged["perplexity_bucket"].to_list() == ["head", "head", "middle", "tail", None, "tail"]
    assert judged["keep"].all()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"min_perplexity": 9, "max_perplexity": 8}, "min_perplexity"),
        ({"boundaries": [9, 8]}, "boundaries"),
        ({"boundaries": [9]}, "boundaries"),
        ({"buckets": ["head"]}, "buckets"),
    ],
)
def test_mistakes(settings: dict, key: str):
    with pytest.raises(ConfigError) as caught:
        Perplexity(Told(), **settings)
    assert caught.value.key == key


def test_other_bounds_measure_nothing_again():
    assert Perplexity(Told()).tag_key() == Perplexity(Told(), max_perplexity=7).tag_key() == "told"
