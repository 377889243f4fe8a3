"""Ids are unique, whatever they were."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.curation.bookkeeping import UniqueIds
from tests.curation.corpora import documents, judge_in_shards

NAMES = ("s", "s/t", "t")


def renamed(*shards: tuple[int, list[str]]) -> pl.DataFrame:
    """Documents with these ids in shards of these sources, as the step leaves them."""
    ids = [one for _, some in shards for one in some]
    frame = documents(["text"] * len(ids)).with_columns(pl.Series("id", ids, pl.String))
    with tempfile.TemporaryDirectory() as folder:
        sizes, sources = [len(some) for _, some in shards[:-1]], [source for source, _ in shards]
        return judge_in_shards(UniqueIds(list(NAMES)), frame, sizes, Path(folder) / "corpus", sources)


def test_a_name_that_is_taken_is_given_to_no_other():
    assert renamed((0, ["a", "a", "a#2"]))["id"].to_list() == ["a", "a#3", "a#2"]
    # two outputs of an earlier curation, read together
    judged = renamed((0, ["a", "a#2"]), (0, ["a", "a#2"]))
    assert judged["id"].to_list() == ["a", "a#2", "a#3", "a#2#2"]
    assert judged["match"].to_list() == [None, None, "a", "a#2"]
    assert judged["reason"].to_list() == [None, None, "duplicate_id", "duplicate_id"]
    long = ["a", *(f"a#{number}" for number in range(2, 500))]
    assert renamed((0, long), (0, ["a"] * 3))["id"].to_list() == [*long, "a#500", "a#501", "a#502"]


def test_sources_names_stand_before_what_they_share_and_nothing_else():
    judged = renamed((0, ["a", "b", "b", "c"]), (2, ["a", "a", "d"]))
    assert judged["id"].to_list() == ["s/a", "b", "b#2", "c", "t/a", "t/a#2", "d"]
    assert judged["match"].to_list() == [None, None, "b", None, None, "t/a", None]
    taken = renamed((0, ["a", "s/a", "a#2", "a"]), (2, ["a", "a#2"]))
    assert taken["id"].to_list() == ["s/a#3", "s/a", "s/a#2", "s/a#4", "t/a", "t/a#2"]


ids = st.lists(st.sampled_from(["a", "a#2", "a#3", "a#2#2", "b", "t/a", "s/t/a", "t/a#2", "", "#2", "s/"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), ids), min_size=1, max_size=5))
def test_any_ids_in_any_shards_come_out_unique(shards: list[tuple[int, list[str]]]):
    shards = sorted(shards, key=lambda shard: shard[0])
    judged = renamed(*shards)
    assert judged["id"].is_unique().all()
    before = [(one, source) for source, some in shards for one in some]
    bearers = Counter(one for one, _ in set(before))
    seen = set()
    for (one, _), new in zip(before, judged["id"], strict=True):
        if bearers[one] == 1:
            assert (new == one) == (one not in seen), "the first bearer alone keeps its id"
            seen.add(one)
