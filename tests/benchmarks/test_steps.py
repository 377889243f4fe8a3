"""The benchmark of single steps: rates of each, on documents that are what a reader would have given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from llm.benchmarks.steps import CurationSteps
from llm.curation.base import Tagger
from llm.curation.exact_dedup import ExactDedup
from llm.curation.quality import GopherQuality
from llm.runs.run import Run
from llm.types import ConfigError
from tests.benchmarks.test_curation import prose


def test_rates(tmp_path: Path):
    steps = {"quality": GopherQuality(), "exact_dedup": ExactDedup()}
    path = str(prose(tmp_path / "prose"))
    found = CurationSteps(path, steps, n_megabytes=1, n_rounds=2).measure(Run(tmp_path / "run"))
    assert 0.95e6 < found["bytes"] <= 1e6
    for name in steps:
        rate = found["bytes"] / 1e6 / found["documents"]
        assert found[f"mb_{name}"] / found[f"docs_{name}"] == pytest.approx(rate)
        assert found[f"ratio_{name}"] > 0
    assert 0.9 < found["kept_exact_dedup"] < 1
    table = json.loads((tmp_path / "run" / "tables" / "steps.json").read_text())
    assert [row[0] for row in table["rows"]] == list(steps)


def test_every_round_measures(tmp_path: Path):
    class Counting:
        seen = 0
        attributes: ClassVar = {"_size": pl.UInt32}

        def tag_key(self) -> object:
            return None

        def tag(self, texts: pl.Series) -> pl.DataFrame:
            return texts.str.len_bytes().alias("_size").to_frame()

        def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
            frame = documents.collect()
            Counting.seen += frame.hstack(self.tag(frame["text"])).height
            return frame.lazy().with_columns(keep=pl.lit(True), reason=None, score=None, match=None)

    assert isinstance(Counting(), Tagger)
    benchmark = CurationSteps(str(prose(tmp_path / "prose")), {"it": Counting()}, n_megabytes=1, n_rounds=2)
    found = benchmark.measure(Run(tmp_path / "run"))
    assert Counting.seen == 3 * found["documents"]


def test_no_steps(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"curation/step@benchmark\.steps\."):
        CurationSteps(str(tmp_path), {})
