from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from llm.curation.band_notes import Notes, take_notes
from llm.curation.base import Corpus
from llm.curation.minhash import MinHash
from llm.curation.near_duplicates import jaccard, shingles
from llm.curation.shingles import Shingler
from llm.curation.verification import Compared, ShingleSets, jaccard_of_sets


def test_jaccard_of_sets():
    chance = np.random.default_rng(0)
    for size in (0, 1, 50):
        first, second = (np.unique(chance.integers(0, 80, size).astype(np.uint64)) for _ in range(2))
        plain = jaccard(frozenset(map(str, first)), frozenset(map(str, second)))
        assert jaccard_of_sets(first, second) == plain
        assert jaccard_of_sets(first, first) == (1.0 if size else 0.0)


def test_similarity_of_documents_in_several_shards(tmp_path):
    choice = random.Random(0)
    texts = [" ".join(choice.choices("abcdef", k=choice.randrange(1, 30))) for _ in range(60)]
    shingler, minhash = Shingler("word", 2), MinHash(4, 2, 0)
    shards, surveys = [], []
    for start in range(0, 60, 20):
        part = pl.Series("text", ["", *texts[start : start + 20]])  # one without shingles: not noted
        shards.append(tmp_path / f"{start}.shard")
        surveys.append(tmp_path / f"{start}.survey")
        pl.DataFrame({"id": [""] * 21, "text": part}).write_parquet(shards[-1])
        notes = take_notes(part, shingler, minhash)
        notes.with_columns(priority=pl.Series(range(20)) + start).write_parquet(surveys[-1])
    done: list[int] = []
    notes = Notes.of(Corpus(shards, surveys, tmp_path, done.append), 0, "priority")
    assert len(notes) == 60
    first, second = np.random.default_rng(0).integers(0, 60, (2, 200))
    with ShingleSets(notes, np.unique(np.concatenate((first, second))), shingler) as sets:
        found = sets.similar(first, second, 0.0)
        bounded = sets.similar(first, second, 0.5)
    assert sum(done) == 3
    by_number = [shingles(text, 2) for text in texts[::-1]]  # the highest priority has the lowest number
    plain = [jaccard(by_number[a], by_number[b]) for a, b in zip(first, second, strict=True)]
    assert found.tolist() == plain
    assert [one for one in bounded if one >= 0.5] == [one for one in plain if one >= 0.5]
    assert (bounded[np.array(plain) < 0.5] < 0.5).all()


@pytest.mark.parametrize("most", [3, 1000])
def test_pairs_are_not_compared_again(most):
    compared = Compared(most)
    first, second = np.array([1, 1, 2]), np.array([2, 3, 3])
    assert len(compared.new(first, second)[0]) == 3
    compared.next_band()
    again = compared.new(np.array([1, 2, 9, 3]), np.array([2, 3, 9, 1]))
    assert [one.tolist() for one in again] == [[9, 3], [9, 1]], "(3, 1) is another key than (1, 3)"
    compared.next_band()
    assert len(compared.new(first, second)[0]) == (3 if most == 3 else 0), "and forgotten when there are many"
