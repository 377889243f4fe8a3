from __future__ import annotations

import random

import polars as pl
import pytest

from llm.curation import verification
from llm.curation.base import judge
from llm.curation.leaks import N_BANDS, LeakRemoval, copies_of
from llm.curation.near_duplicates import jaccard, shingles
from llm.curation.near_search import MOST_SOURCES
from tests.curation.shards import in_shards
from tests.curation.test_near_dedup import WORDS, changed, families
from tests.curation.test_steps import corpus


def two_sides(seed: int) -> tuple[pl.DataFrame, list[str], list[str]]:
    """A corpus with a third held out; the texts of training and of validation."""
    texts = families(seed)
    choice = random.Random(seed)
    frame = corpus(texts).with_columns(held_out=pl.Series([choice.random() < 0.3 for _ in texts]))
    return frame, *(frame.filter(pl.col("held_out") == held)["text"].to_list() for held in (False, True))


def among_documents(train: pl.DataFrame, validation: pl.DataFrame) -> dict[str, tuple[str, str, float]]:
    """Reason, match and score of each leak, by validation id."""
    sides = [
        side.select("id", "text", pl.lit(held).alias("held_out"))
        for side, held in ((train, False), (validation, True))
    ]
    found = judge(LeakRemoval(), pl.concat(sides)).filter(~pl.col("keep"))
    return {row[0]: row[1:] for row in found.select("id", "reason", "match", "score").iter_rows()}


@pytest.mark.parametrize("seed", range(3))
def test_decisions_against_all_pairs(seed: int):
    frame, train, validation = two_sides(seed)
    names = frame.filter(~pl.col("held_out"))["id"].to_list()
    sets = [shingles(text, 4) for text in train]
    expected = []
    for text in validation:
        similarities = [jaccard(shingles(text, 4), one) for one in sets]
        best = max(similarities)
        new = best < 0.5
        expected.append((new, None, None, None) if new else (
            new, "near_duplicate_of_train", best, names[similarities.index(best)]
        ))  # fmt: skip
    assert sum(new for new, *_ in expected) not in (0, len(expected))
    judged = in_shards(LeakRemoval(), frame, 3)
    held = judged.filter("held_out").select("keep", "reason", "score", "match")
    assert held.rows() == expected
    assert judged.filter(~pl.col("held_out"))["keep"].all()
    assert judged.equals(in_shards(LeakRemoval(), frame, 1))
    # and so does the comparison of two lists of texts
    listed = copies_of(train, validation, threshold=0.5, n_words=4)
    assert [match and (names[match[0]], match[1]) for match in listed] == [
        match and (match, score) for _, _, score, match in expected
    ]


def test_of_frames_in_memory():
    frame, _, _ = two_sides(5)
    sides = [frame.filter(pl.col("held_out") == held).drop("held_out") for held in (False, True)]
    found = among_documents(*sides)
    gone = in_shards(LeakRemoval(), frame, 2).filter(~pl.col("keep"))
    assert found == {
        one: (reason, match, score)
        for one, reason, match, score in gone.select("id", "reason", "match", "score").iter_rows()
    }
    assert among_documents(sides[0], sides[1].head(0)) == {}
    assert among_documents(sides[0].head(0), sides[1]) == {}


def test_copies_and_copies_of_copies():
    page, other = (" ".join(random.Random(seed).choices(WORDS, k=50)) for seed in (0, 1))
    near = f"{other} and more"
    texts = [page, page, "", "", page.upper(), other, near, near, "new words only", page]
    held = [True, False, True, False, True, False, True, True, True, False]
    judged = in_shards(LeakRemoval(), corpus(texts).with_columns(held_out=pl.Series(held)), 2)
    assert judged["match"].to_list() == ["d1", None, None, None, "d1", None, "d5", "d5", None, None]
    assert judged["score"].to_list()[:5] == [1.0, None, None, None, 1.0]


def test_many_copies_in_training_are_not_all_compared(monkeypatch):
    choice = random.Random(0)
    page = " ".join(choice.choices(WORDS, k=60))
    texts = [changed(page, 2, choice) for _ in range(400)]
    compared = []
    actual = verification.jaccard_of_sets
    monkeypatch.setattr(verification, "jaccard_of_sets", lambda *sets: compared.append(1) or actual(*sets))
    held = pl.Series([number % 10 == 0 for number in range(400)])
    judged = in_shards(LeakRemoval(), corpus(texts).with_columns(held_out=held), 2)
    assert not judged.filter("held_out")["keep"].any()
    assert len(compared) <= 40 * N_BANDS * MOST_SOURCES
    assert len(compared) < 40 * 360, "the number of all pairs"
