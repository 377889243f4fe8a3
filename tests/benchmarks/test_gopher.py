from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llm.benchmarks.gopher import FILTERS, Gopher, _ours, _theirs, prose
from llm.curation import words
from llm.runs.run import Run
from llm.types import ConfigError


def agreement(rules, texts: list[str]) -> float:
    kept: dict[str, list[bool]] = {}
    _ours(rules, texts, kept)()
    _theirs(rules, texts, kept)()
    assert len(kept["ours"]) == len(texts)
    return float(np.mean(np.equal(kept["ours"], kept["datatrove"])))


def test_prose_is_a_function_of_its_seed() -> None:
    assert prose(5, 1) == prose(5, 1)
    assert prose(5, 1) != prose(5, 2)


@pytest.mark.parametrize("rules", sorted(FILTERS))
def test_decisions_are_those_of_datatrove(rules) -> None:
    pytest.importorskip("spacy")
    pytest.importorskip("datatrove")
    # a single sentence is left out: of n-grams that occur once, datatrove's counts the first
    texts = [text for text in prose(14, 0) if rules != "repetition" or "\n" in text]
    assert agreement(rules, texts) == 1


@pytest.mark.parametrize("rules", sorted(FILTERS))
def test_decisions_on_real_pages(rules, shared_dir: Path) -> None:
    pytest.importorskip("spacy")
    pytest.importorskip("datatrove")
    path = shared_dir / "data" / "c4-demo" / "c4_demo.jsonl.gz"
    texts = Gopher(path=str(path), n_documents=20)._texts(0)
    assert agreement(rules, texts) == 1


def test_words_are_counted_as_spacy_does(shared_dir: Path) -> None:
    pytest.importorskip("spacy")
    text = pytest.importorskip("datatrove.utils.text")
    path = shared_dir / "data" / "c4-demo" / "c4_demo.jsonl.gz"
    texts = Gopher(path=str(path), n_documents=20)._texts(0)
    theirs = sum(len(text.split_into_words(page)) for page in texts)
    assert words.find(texts).starts.size == pytest.approx(theirs, rel=0.002)


def test_measures_both_sides(tmp_path: Path) -> None:
    pytest.importorskip("spacy")
    pytest.importorskip("datatrove")
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in prose(4, 0)))
    run = Run(tmp_path / "run")
    metrics = Gopher(path=str(path), n_documents=3, n_rounds=1).measure(run)
    assert next(iter(metrics)) == "ratio"
    assert metrics["n_documents"] == 3
    assert metrics["agreement"] == 1
    assert metrics["ratio"] == pytest.approx(
        metrics["documents_per_second"] / metrics["datatrove_documents_per_second"]
    )


def test_a_file_without_texts(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text('{"text": "a"}\n{"txt": "a"}\n')
    with pytest.raises(ConfigError, match="line 2 has no text"):
        Gopher(path=str(path))._texts(0)
