"""A step that compares the corpus, carried out over a corpus of several shards."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from llm.curation.base import Corpus, CorpusStep


def in_shards(step: CorpusStep, documents: pl.DataFrame, n_shards: int) -> pl.DataFrame:
    """The verdict on all documents, the corpus in so many shards of unequal size."""
    bounds = sorted({documents.height * number**2 // n_shards**2 for number in range(n_shards + 1)})
    frames = [documents[a:b] for a, b in pairwise(bounds)] or [documents]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scratch").mkdir()
        shards = [folder / f"p00-00000-{number:03}.parquet" for number in range(len(frames))]
        surveys = [folder / f"{number}.survey" for number in range(len(frames))]
        for shard, survey, frame in zip(shards, surveys, frames, strict=True):
            frame.write_parquet(shard)
            step.survey(frame).write_parquet(survey)
        decisions = step.decide(Corpus(shards, surveys, folder / "scratch"))
        assert decisions.select("shard", "row").is_duplicated().sum() == 0
        return pl.concat(
            step.apply(frame, decisions.filter(shard=number).drop("shard"))
            for number, frame in enumerate(frames)
        )
