"""Documents for tests, and a step's verdict on them in one shard or in several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl

from llm.curation.base import DOCUMENT_COLUMNS, Corpus, CorpusStep


def documents(
    texts: Sequence[str], domains: Sequence[str] | None = None, sources: Sequence[str] | None = None
) -> pl.DataFrame:
    n = len(texts)
    columns = {
        "id": [f"d{i}" for i in range(n)],
        "text": texts,
        "source": sources or ["s"] * n,
        "domain": domains or ["text"] * n,
        "licence": [None] * n,
        "provenance": [f"s:{i + 1}" for i in range(n)],
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(DOCUMENT_COLUMNS, pl.String))


def judge_in_shards(
    step: CorpusStep,
    frame: pl.DataFrame,
    sizes: Sequence[int],
    folder: Path,
    sources: Sequence[int] | None = None,
) -> pl.DataFrame:
    """As the runner does it; shards have these many documents, the last one takes the rest.

    `sources` are the numbers of the shards' sources, 0 for all when None.
    """
    folder.mkdir(parents=True)
    (folder / "scratch").mkdir()
    bounds = [0]
    for size in sizes:
        bounds.append(min(frame.height, bounds[-1] + size))
    bounds.append(frame.height)
    frames = [frame[start:end] for start, end in pairwise(bounds)]
    shards, surveys = [], []
    for number, part in enumerate(frames):
        shards.append(folder / f"p{sources[number] if sources else 0:02}-00000-{number:03}.parquet")
        surveys.append(folder / f"survey-{number}")
        part.write_parquet(shards[-1])
        step.survey(part).write_parquet(surveys[-1])
    done: list[int] = []
    decisions = step.decide(Corpus(shards, surveys, folder / "scratch", done.append))
    assert sum(done) in (0, len(shards)), "a shard is told of once"
    assert decisions.schema["shard"] == decisions.schema["row"] == pl.UInt32
    judged = [
        step.apply(part, decisions.filter(pl.col("shard") == number).drop("shard"))
        for number, part in enumerate(frames)
    ]
    return pl.concat(judged)
