"""A run that stopped goes on under other settings: what they leave alone stands, the result is theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llm.curation.base import Step
from llm.curation.embedded import EmbeddedCorpus
from llm.curation.exact_dedup import ExactDedup
from llm.curation.jsonl import JsonLines
from llm.curation.leaks import LeakRemoval
from llm.curation.mixture import DomainMixture
from llm.curation.output import Output
from llm.curation.pipeline import Curation
from llm.curation.quality import GopherQuality
from llm.curation.split import HashSplit
from llm.curation.unimax import UniMaxMixture
from llm.runs.run import Run
from llm.tasks.curate import curate
from llm.types import ConfigError
from tests.curation import small_corpus
from tests.curation.test_resume import digests
from tests.tasks.test_curate import numpy_only

GOOD, LACKING = {"a": 1, "b": 2}, {"a": 1}


class Watched:
    """A step that does nothing but tell how many documents it has seen."""

    seen = 0

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        Watched.seen += documents.collect().height
        return documents.with_columns(
            keep=pl.lit(True), reason=pl.lit(None, pl.String), score=pl.lit(None, pl.Float64),
            match=pl.lit(None, pl.String),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def reset() -> None:
    Watched.seen = 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    small_corpus.write(tmp_path / "texts")
    return tmp_path


def declared(home: Path, weights: dict[str, float] | None, min_words: int = 50, **more: Any) -> Curation:
    steps: dict[str, Step] = {"watched": Watched(), "exact_dedup": ExactDedup()}  # type: ignore[dict-item]
    return Curation(
        {"files": JsonLines(str(home / "texts"), domain_column="kind")},
        {**steps, "quality": GopherQuality(min_words=min_words)},
        split=HashSplit(0.2),
        leaks=LeakRemoval(),
        mixture=None if weights is None else DomainMixture(weights),
        shard_bytes=20_000,
        **more,
    )


def outputs(run: Path, curation: Curation) -> dict[str, str]:
    curate(run=Run(run), curation=curation)
    return digests(run)


def stopped(run: Path, curation: Curation) -> None:
    """A run that ends with a mistake in its last step."""
    with pytest.raises(ConfigError, match="lacks the group 'b'") as caught:
        curate(run=Run(run), curation=curation)
    assert caught.value.key == "curation.mixture.weights"
    assert (run / "work").is_dir()


def stopped_writing(run: Path, curation: Curation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends before its outputs are written."""

    def full(*_: object) -> None:
        raise OSError("No space left")

    with monkeypatch.context() as patched:
        patched.setattr(Output, "side", full)
        with pytest.raises(OSError, match="No space left"):
            curate(run=Run(run), curation=curation)
    assert (run / "work").is_dir()


def test_a_mistake_in_the_last_step_costs_none_of_the_others(home: Path):
    stopped(home / "run", declared(home, LACKING))
    first = Watched.seen
    assert first > 0
    found = outputs(home / "run", declared(home, GOOD))
    assert Watched.seen == first, "the steps before were done again"
    assert found == outputs(home / "fresh", declared(home, GOOD))


def test_another_balanced_column_takes_its_notes_anew(home: Path):
    stopped(home / "run", declared(home, LACKING))
    first = Watched.seen
    curation = declared(home, None)
    curation.mixture = UniMaxMixture(by="source", max_repeats=2, seed=3)
    found = outputs(home / "run", curation)
    assert Watched.seen == first
    assert found == outputs(home / "fresh", curation)


@pytest.mark.parametrize("weights", [None, GOOD])
def test_a_step_before_has_changed(home: Path, weights: dict[str, float] | None):
    stopped(home / "run", declared(home, LACKING))
    found = outputs(home / "run", declared(home, weights, min_words=70))
    assert found == outputs(home / "fresh", declared(home, weights, min_words=70))


def test_the_last_step_is_left_out(home: Path):
    stopped(home / "run", declared(home, LACKING))
    first = Watched.seen
    found = outputs(home / "run", declared(home, None))
    assert Watched.seen == first
    assert found == outputs(home / "fresh", declared(home, None))


def test_it_is_left_out_after_it_was_carried_out(home: Path, monkeypatch: pytest.MonkeyPatch):
    stopped_writing(home / "run", declared(home, GOOD), monkeypatch)
    found = outputs(home / "run", declared(home, None))
    assert found == outputs(home / "fresh", declared(home, None))


def test_the_sources_have_changed(home: Path):
    stopped(home / "run", declared(home, LACKING))
    small_corpus.write(home / "texts", seed=1)
    found = outputs(home / "run", declared(home, GOOD))
    assert found == outputs(home / "fresh", declared(home, GOOD))


def test_with_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stopped_writing(tmp_path / "run", numpy_only(), monkeypatch)
    assert outputs(tmp_path / "run", numpy_only()) == outputs(tmp_path / "fresh", numpy_only())


def test_names_of_what_every_curation_does():
    sources = {"embedded": EmbeddedCorpus(["numpy"])}
    with pytest.raises(ConfigError, match=r"taken are .*split"):
        Curation(sources, {"split": ExactDedup()})
