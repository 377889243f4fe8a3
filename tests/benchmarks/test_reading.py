"""Both sides of the benchmark of readers read the same texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm.benchmarks import reading
from llm.benchmarks.reading import Reading
from llm.runs.run import Run


def test_measures_four_sides(tmp_path: Path) -> None:
    metrics = Reading(n_megabytes=1, n_rounds=2).measure(Run(tmp_path / "run"))
    assert next(iter(metrics)) == "ratio_jsonl"
    sides = ["jsonl", "json_loads", "parquet", "read_parquet"]
    assert {f"megabytes_per_second_{side}" for side in sides} | {"ratio_parquet"} <= set(metrics)
    assert all(value > 0 for value in metrics.values())
    table = json.loads((tmp_path / "run" / "tables" / "timings.json").read_text())
    assert table["columns"] == sides
    assert len(table["rows"]) == 2


def test_a_side_that_loses_text_is_no_time(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "abc"}\n')
    reading._loop(path, 3)
    with pytest.raises(AssertionError):
        reading._loop(path, 4)
