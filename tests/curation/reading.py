"""What a source says, for the tests of all of them."""

from __future__ import annotations

import pickle

import polars as pl

from llm.curation.base import DOCUMENT_COLUMNS, StreamedSource
from llm.curation.documents import SCHEMA


def read(source) -> pl.DataFrame:
    """Everything a source says, as another process would get it."""
    assert isinstance(source, StreamedSource)
    parts = source.parts()
    assert len(set(parts)) == len(parts)
    source = pickle.loads(pickle.dumps(source))
    frames = [frame for part in parts for frame in source.read(part)]
    assert all(frame.schema == SCHEMA for frame in frames)
    return pl.concat(frames)


def rows(source) -> list[tuple]:
    """Id, text, source and domain of what is kept."""
    frame = source.documents().collect()
    assert tuple(frame.columns) == DOCUMENT_COLUMNS
    return frame.select("id", "text", "source", "domain").rows()


def told(source) -> list[tuple]:
    """Id, text and reason of everything."""
    found = read(source)
    rejects = found.filter(~pl.col("keep"))
    assert rejects["reason"].null_count() == 0
    return found.select("id", "text", "keep", "reason").rows()
