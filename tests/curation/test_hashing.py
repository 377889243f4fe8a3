"""Notes of a corpus taken part by part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm.curation import hashing
from llm.curation.base import Corpus
from llm.curation.hashing import partitions
from llm.curation.substring_dedup import SubstringDedup
from tests.curation.corpora import documents, judge_in_shards


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often each file is read whole."""
    counted: Counter[str] = Counter()
    read = pl.read_parquet

    def counting(path, **options):
        counted[Path(path).name] += 1
        return read(path, **options)

    monkeypatch.setattr(pl, "read_parquet", counting)
    return counted


@pytest.mark.parametrize("rows", [1, 100, 1000, 5000])
def test_every_note_is_read_once_and_in_order(rows: int, tmp_path: Path, reads: Counter[str]):
    rng = np.random.default_rng(1)
    sizes = [300, 0, 1, 250, 449]
    paths = [tmp_path / f"p00-00000-{number:03}.survey" for number in range(5)]
    for path, size in zip(paths, sizes, strict=True):
        hashes = rng.integers(0, 2**64, size, np.uint64)
        notes = {"row": np.arange(size, dtype=np.uint32), "hash": hashes, "vector": [b"\0\1"] * size}
        pl.DataFrame(notes, schema={"row": pl.UInt32, "hash": pl.UInt64, "vector": pl.Binary}).write_parquet(
            path
        )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done: list[int] = []
    parts = list(partitions(Corpus(paths, paths, scratch, done.append), rows=rows))
    assert sum(done) == 5
    assert reads == Counter({path.name: 1 for path in paths})
    assert not list(scratch.iterdir()), "the files are gone"
    n_parts = max(1, -(-1000 // rows))
    whole = Corpus(paths, paths, scratch).scan().collect()
    want = [whole.filter(pl.col("hash") % n_parts == part) for part in range(n_parts)]
    assert [part.rows() for part in parts] == [part.rows() for part in want if part.height]
    assert parts[0].schema == whole.schema


def test_passages_are_read_once_too(tmp_path: Path, monkeypatch, reads: Counter[str]):
    monkeypatch.setattr(hashing, "ROWS_AT_ONCE", 20)
    texts = [f"number {i % 7} of the texts that repeat each other word for word, {i}" for i in range(40)]
    whole = judge_in_shards(SubstringDedup(min_bytes=16), documents(texts), [], tmp_path / "one")
    reads.clear()
    many = judge_in_shards(SubstringDedup(min_bytes=16), documents(texts), [4] * 9, tmp_path / "many")
    assert many.equals(whole)
    assert sum(name.startswith("cuts-") for name in reads) > 3
    assert all(n == 1 for name, n in reads.items() if name.startswith(("cuts-", "unclear-", "survey-")))
