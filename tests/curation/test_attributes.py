"""What a tagger has measured is not measured again, whatever the thresholds before and behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from llm.curation.attributes import AttributeStore, text_hashes
from llm.curation.pipeline import Curation
from llm.curation.split import HashSplit
from llm.curation.text import TextFiles
from llm.runs.run import Run
from llm.tasks.curate import curate


class Length:
    """Characters of a text; counts how many it has measured."""

    attributes: Mapping[str, Any] = {"length": pl.Int64, "_doubled": pl.Int64}

    def __init__(self, least: int = 0, version: int = 1) -> None:
        self.least, self.version, self.measured = least, version, 0

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        self.measured += len(texts)
        lengths = texts.str.len_chars().cast(pl.Int64)
        return pl.DataFrame({"length": lengths, "_doubled": 2 * lengths})

    def tag_key(self) -> object:
        return {"version": self.version}

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        short = pl.col("_doubled") < 2 * self.least
        return documents.with_columns(
            (~short).alias("keep"),
            pl.when(short).then(pl.lit("short")).alias("reason"),
            pl.col("length").cast(pl.Float64).alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )


def test_only_new_texts_are_measured(tmp_path: Path):
    store, step = AttributeStore(tmp_path), Length()
    frame = pl.DataFrame({"text": ["a", "bb", "a", "é"]})
    tagged, measured = store.tagged(step, frame, "s")
    assert (tagged["length"].to_list(), measured) == ([1, 2, 1, 1], 3)
    more = pl.DataFrame({"text": ["ccc", "bb"]})
    tagged, measured = store.tagged(step, more, "s")
    assert (tagged["length"].to_list(), measured) == ([3, 2], 1)
    assert store.tagged(step, frame, "s")[1] == 0
    assert store.tagged(Length(version=2), frame, "s")[1] == 3, "another key, another measure"
    for path in tmp_path.rglob("*.parquet"):
        path.write_bytes(b"torn")
    assert store.tagged(step, frame, "s")[1] == 3, "a torn file is measured anew"
    assert AttributeStore(None).tagged(step, frame, "s")[1] == 4


def test_hashes_are_blake2b():
    # by `b2sum -l 128`
    assert text_hashes(pl.Series(["x"]))[0].hex() == "442a44457137672b3218c1007dc8f76a"


def test_a_changed_threshold_measures_nothing(tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n\n".join("x" * n for n in range(1, 41)))

    def run(name: str, step: Length) -> pl.DataFrame:
        curation = Curation(
            {"a": TextFiles(str(tmp_path / "a.txt"), per="paragraph")},
            {"length": step},
            split=HashSplit(0.2),
            attributes=str(tmp_path / "attributes"),
        )
        curate(run=Run(tmp_path / name), curation=curation)
        return pl.read_parquet(tmp_path / name / "train.parquet")

    first, second = Length(30), Length(10)
    assert run("first", first)["length"].min() >= 30
    assert first.measured == 40
    loose = run("second", second)
    assert 10 <= loose["length"].min() < 30
    assert "_doubled" not in loose.columns
    assert second.measured == 0
