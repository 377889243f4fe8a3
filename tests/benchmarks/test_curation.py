"""The benchmark at scale, on corpora of a megabyte; its corpora are what they are said to be."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from llm.benchmarks.curation import CurationAtScale, resident_bytes
from llm.benchmarks.made_documents import documents
from llm.runs.run import Run
from llm.types import ConfigError


def prose(folder: Path) -> Path:
    rng = random.Random(0)
    words = [f"word{n}" for n in range(300)] + ["the", "of", "and", "that", "with"] * 20
    sentences = [" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(1500)]
    folder.mkdir()
    (folder / "a.txt").write_text(" ".join(sentences))
    return folder


def test_small_and_large(tmp_path: Path):
    benchmark = CurationAtScale(
        str(prose(tmp_path / "prose")), 1_000_000, 1_500_000, curation=["curation=files"]
    )
    found = benchmark.measure(Run(tmp_path / "run"))
    assert found["ratio"] == pytest.approx(
        found["large_seconds_per_document"] / found["small_seconds_per_document"]
    )
    assert 1_500_000 <= found["large_bytes"] < 1_510_000
    assert found["large_peak_bytes"] > 50e6
    assert 0 < found["large_kept_documents"] < found["large_documents"]
    rates = json.loads((tmp_path / "run" / "tables" / "rates_large.json").read_text())
    assert {"read", "exact_dedup", "quality"} <= {row[0] for row in rates["rows"]}


def test_documents_are_as_told():
    pools = {"prose": [f"Sentence {n} is of some words." for n in range(5000)], "code": ["x = 1\ny = 2"] * 50}
    made = [next(drawn) for drawn in [documents(pools, random.Random(0))] for _ in range(4000)]
    copies = sum(n - 1 for n in Counter(text for _, text in made).values())
    assert copies / len(made) == pytest.approx(0.03, abs=0.015)
    assert sum(len(text.split()) < 25 for _, text in made) / len(made) == pytest.approx(0.02, abs=0.01)


def test_resident_memory_of_this_process():
    assert resident_bytes(os.getpid()) > 10e6
    assert resident_bytes(2**22 + 1) == 0


def test_too_little_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text("One sentence only.")
    with pytest.raises(ConfigError, match="give it more text"):
        CurationAtScale(str(tmp_path)).measure(Run(tmp_path / "run"))
