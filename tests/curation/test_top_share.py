"""The best share of a corpus, whatever its shards."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from llm.curation.base import Corpus, judge
from llm.curation.quality_classifier import QualityClassifier
from llm.curation.top_share import TopShare
from llm.types import ConfigError
from tests.curation.test_steps import corpus


class Number:
    """The number a text is; of a text that is none, nothing."""

    attributes: ClassVar = {"number": pl.Float64()}

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        return texts.cast(pl.Float64, strict=False).alias("number").to_frame()

    def tag_key(self) -> object:
        return "number"


def in_shards(step: TopShare, frame: pl.DataFrame, size: int, folder: Path) -> pl.DataFrame:
    """As the runner does it: any shard in any process, decisions shard by shard."""
    shards, surveys = [], []
    for place in range(0, frame.height, size):
        shard = frame[place : place + size]
        for kind, paths, content in (("shard", shards, shard), ("survey", surveys, step.survey(shard))):
            paths.append(folder / f"{kind}{size}_{place}")
            content.write_parquet(paths[-1])
    decisions = pickle.loads(pickle.dumps(step)).decide(Corpus(shards, surveys, folder))
    parts = decisions.partition_by("shard", as_dict=True, include_key=False)
    return pl.concat(
        step.apply(pl.read_parquet(path), parts.get((number,), decisions.clear().drop("shard")))
        for number, path in enumerate(shards)
    )


TEXTS = [str((i * 37) % 100) for i in range(100)]


@pytest.mark.parametrize("best", ["highest", "lowest"])
def test_exactly_the_share_stays(best: str):
    judged = judge(TopShare(Number(), "number", 0.1, best), corpus(TEXTS))
    numbers = sorted(map(int, judged.filter("keep")["text"]))
    assert numbers == (list(range(90, 100)) if best == "highest" else list(range(10)))
    assert set(judged.filter(~pl.col("keep"))["reason"]) == {"below_top_share"}
    assert judged["score"].to_list() == judged["number"].to_list() == [float(text) for text in TEXTS]


def test_shards_change_nothing_and_equal_scores_go_by_their_place(tmp_path: Path):
    frame = corpus(["5"] * 30 + ["9"] * 4 + ["1"] * 6 + ["none"] * 3)
    whole = judge(TopShare(Number(), "number", 0.25), frame)
    kept = whole.with_row_index().filter("keep")["index"].to_list()
    assert kept == [0, 1, 2, 3, 4, 5, 6, 30, 31, 32, 33]  # a quarter of 43 documents
    for size in (1, 7, 43):
        assert in_shards(TopShare(Number(), "number", 0.25), frame, size, tmp_path).equals(whole)


def test_share_of_the_bytes():
    frame = corpus(["9".zfill(77), "8", "7", "6"])
    assert judge(TopShare(Number(), "number", 0.5), frame)["keep"].to_list() == [True, True, False, False]
    assert (
        judge(TopShare(Number(), "number", 0.5, of="bytes"), frame)["keep"].to_list() == [True] + [False] * 3
    )


def test_groups_are_ranked_each_for_itself_and_other_domains_not_at_all():
    frame = corpus(["1", "2", "30", "40", "99"], ["a", "a", "b", "b", "code"])
    step = TopShare(Number(), "number", 0.5, within="domain", except_domains=["code"])
    judged = judge(step, frame)
    assert judged["keep"].to_list() == [False, True, False, True, True]
    assert judged["score"].to_list() == [1, 2, 30, 40, None]
    with pytest.raises(ConfigError) as caught:
        judge(TopShare(Number(), "number", 0.5, within="language"), frame)
    assert caught.value.key == "within"


def test_what_has_no_score_goes_and_something_always_stays():
    judged = judge(TopShare(Number(), "number", 0.01), corpus(["x", "3", "2"]))
    assert judged["keep"].to_list() == [False, True, False]
    assert judge(TopShare(Number(), "number", 1.0), corpus(["x", "3", "2"]))["keep"].to_list() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("what", ["prepare", "fingerprint"])
def test_a_mistake_of_the_tagger_names_its_place(what: str):
    step = TopShare(QualityClassifier("nowhere"), "quality")
    with pytest.raises(ConfigError) as caught:
        step.prepare(print) if what == "prepare" else step.fingerprint()
    assert (caught.value.key, caught.value.value) == ("tagger.path", "nowhere")


def test_the_attribute_is_one_of_the_taggers():
    with pytest.raises(ConfigError, match="measures number") as caught:
        TopShare(Number(), "quality")
    assert caught.value.key == "attribute"
