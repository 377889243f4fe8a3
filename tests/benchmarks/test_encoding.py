from __future__ import annotations

from pathlib import Path

import pytest

from llm.benchmarks.encoding import Encoding
from llm.config import build, compose
from llm.runs.run import Run
from llm.types import ConfigError

SOURCES = Path(__file__).resolve().parents[2] / "llm" / "tokenizers"


def small(*more: str, path: Path = SOURCES) -> Encoding:
    counts = ["benchmark.n_files=5", "benchmark.n_rounds=1", f"benchmark.path={path}"]
    benchmark: Encoding = build(compose(["task=benchmark", "benchmark=encoding", *counts, *more]).benchmark)
    return benchmark


def test_both_sides_give_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.tokenizers.ranks.ENOUGH_CHARACTERS", 0)
    metrics = small("benchmark.tokenizer.vocab_size=1000").measure(Run(tmp_path / "run"))
    assert next(iter(metrics)) == "ratio"
    assert metrics["identical"] == 1
    assert metrics["ratio_low"] <= metrics["ratio"] <= metrics["ratio_high"]
    assert metrics["n_files"] == 5
    assert (tmp_path / "run" / "tables" / "timings.json").is_file()


def test_other_ids_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.benchmarks.encoding.encode_batch", lambda _, batch: [[0] for _ in batch])
    assert small("benchmark.tokenizer.vocab_size=300").measure(Run(tmp_path / "run"))["identical"] == 0


def test_what_cannot_be_timed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.py file") as caught:
        small(path=tmp_path).measure(Run(tmp_path / "run"))
    assert caught.value.key == "path"
    with pytest.raises(ConfigError, match="none of Hugging Face's") as caught:
        small("tokenizer@benchmark.tokenizer=character", "~benchmark.tokenizer.vocab_size").measure(
            Run(tmp_path / "run")
        )
    assert caught.value.key == "tokenizer"
