from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llm.benchmarks.dedup import Dedup, datasketch_side, datatrove_side, quality
from llm.benchmarks.planted import plant, true_pairs
from llm.curation.near_dedup import NearDedup
from llm.curation.near_duplicates import WORD
from llm.runs.run import Run
from llm.types import ConfigError


def test_all_sides_on_one_corpus(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("datasketch")
    pytest.importorskip("spacy")
    metrics = Dedup(n_documents=300, n_reference_documents=30, n_rounds=1).measure(Run(tmp_path / "run"))
    assert next(iter(metrics)) == "ratio_datatrove"
    assert metrics["recall"] >= 0.99
    assert metrics["precision"] == 1.0
    assert abs(metrics["n_pairs"] - 30) <= 2
    for side in ("datatrove", "datatrove_regex", "datasketch"):
        assert metrics[f"ratio_{side}_low"] <= metrics[f"ratio_{side}"] <= metrics[f"ratio_{side}_high"]
        rates = metrics["documents_per_second_ours"] / metrics[f"documents_per_second_{side}"]
        assert metrics[f"ratio_{side}"] == pytest.approx(rates), "of one round the medians are the values"
    assert (tmp_path / "run" / "tables" / "timings.json").is_file()


def test_datatrove_does_remove_near_duplicates() -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    texts = plant(120, seed=0).texts
    n_pairs = len(true_pairs(texts, 5, 0.8))
    left: Any = datatrove_side(texts, WORD.findall)()
    assert n_pairs * 0.75 <= len(texts) - len(left) <= n_pairs + 6


def test_datasketch_does_remove_near_duplicates() -> None:
    pytest.importorskip("datasketch")
    texts = plant(120, seed=0).texts
    n_pairs = len(true_pairs(texts, 5, 0.8))
    gone: Any = datasketch_side(texts, NearDedup())()
    assert n_pairs * 0.9 <= len(gone) <= n_pairs + 6


def test_quality() -> None:
    truth = {(1, 2): 0.9, (3, 4): 0.8, (5, 6): 0.95}
    found = quality({2: 1, 3: 4, 7: 1, 8: 6}, truth)
    assert (found["recall"], found["precision"]) == (pytest.approx(2 / 3), 0.5)
    assert quality({}, {})["precision"] == quality({}, {})["recall"] == 1.0


@pytest.mark.parametrize("package", ["datatrove.data", "spacy", "datasketch"])
def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="compare") as caught:
        Dedup(n_documents=20).measure(Run(tmp_path / "run"))
    assert caught.value.key == "benchmark"
