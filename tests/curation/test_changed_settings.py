"""A run that stopped goes on under other settings: what they leave alone stands, the result is theirs."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llm.curation.base import Corpus, Step
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


def test_with_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    stopped_writing(tmp_path / "run", numpy_only(), monkeypatch)
    found = outputs(tmp_path / "run", numpy_only())
    assert "settings have changed" not in capsys.readouterr().err
    assert found == outputs(tmp_path / "fresh", numpy_only())


def test_the_order_of_steps_is_a_setting(home: Path):
    curation = declared(home, None)
    outputs(home / "run", curation)
    turned = declared(home, None)
    turned.steps = dict(reversed(curation.steps.items()))
    assert outputs(home / "run", turned) == outputs(home / "fresh", turned)


def test_stopped_while_notes_were_taken_anew(home: Path, monkeypatch: pytest.MonkeyPatch):
    def begin(normalise: bool) -> Curation:
        curation = declared(home, None)
        curation.steps["exact_dedup"] = ExactDedup(normalise=normalise)
        return curation

    def fail(*_: object) -> None:
        raise OSError("No space left")

    with monkeypatch.context() as patched:
        patched.setattr(ExactDedup, "decide", fail)
        with pytest.raises(OSError, match="No space left"):
            curate(run=Run(home / "run"), curation=begin(True))
    survey, taken = ExactDedup.survey, []

    def cut_off(self: ExactDedup, documents: pl.DataFrame) -> pl.DataFrame:
        taken.append(documents.height)
        return survey(self, documents) if len(taken) < 4 else fail()  # type: ignore[return-value]

    with monkeypatch.context() as patched:
        patched.setattr(ExactDedup, "survey", cut_off)
        with pytest.raises(OSError, match="No space left"):
            curate(run=Run(home / "run"), curation=begin(False))
    assert len(taken) == 4
    assert outputs(home / "run", begin(True)) == outputs(home / "fresh", begin(True))


def decided(monkeypatch: pytest.MonkeyPatch) -> list[ExactDedup]:
    """Grows by each decision on exact duplicates."""
    found: list[ExactDedup] = []
    decide = ExactDedup.decide

    def told(self: ExactDedup, corpus: Corpus) -> pl.DataFrame:
        found.append(self)
        return decide(self, corpus)

    monkeypatch.setattr(ExactDedup, "decide", told)
    return found


def test_a_mistake_behind_a_decision_does_not_cost_it(home: Path, monkeypatch: pytest.MonkeyPatch):
    def twice(second: ExactDedup) -> Curation:
        curation = declared(home, None)
        curation.steps["again"] = second
        return curation

    n_decided = decided(monkeypatch)
    with pytest.raises(ConfigError, match="extent"):
        curate(run=Run(home / "run"), curation=twice(ExactDedup(keep="best", by="extent")))
    assert len(n_decided) == 1
    found = outputs(home / "run", twice(ExactDedup()))
    assert len(n_decided) == 2, "the first decision was made again"
    assert found == outputs(home / "fresh", twice(ExactDedup()))


def test_a_decision_that_is_not_whole_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch):
    n_decided = decided(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(GopherQuality, "annotate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            curate(run=Run(home / "run"), curation=declared(home, None))
    (folder,) = (home / "run" / "work").glob("*exact_dedup.decisions")
    (next(folder.glob("p*.parquet"))).unlink()
    found = outputs(home / "run", declared(home, None))
    assert len(n_decided) == 2
    assert found == outputs(home / "fresh", declared(home, None))


def test_killed_while_its_work_was_deleted(home: Path, monkeypatch: pytest.MonkeyPatch):
    delete = shutil.rmtree

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.name == ".work.tmp" and path.exists():
            raise KeyboardInterrupt
        delete(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            curate(run=Run(home / "run"), curation=declared(home, GOOD))
    assert not (home / "run" / "work").exists()
    assert outputs(home / "run", declared(home, GOOD)) == outputs(home / "fresh", declared(home, GOOD))


def test_names_of_what_every_curation_does():
    sources = {"embedded": EmbeddedCorpus(["numpy"])}
    with pytest.raises(ConfigError, match=r"taken are .*split"):
        Curation(sources, {"split": ExactDedup()})


def test_a_lost_card_is_written_again(home: Path):
    outputs(home / "run", declared(home, GOOD))
    for name in ("data_card.md", "funnel.parquet"):
        (home / "run" / name).unlink()
    curate(run=Run(home / "run"), curation=declared(home, GOOD))
    assert (home / "run" / "data_card.md").read_text().startswith("# Data card")
    assert (home / "run" / "funnel.parquet").is_file()


def test_copies_take_no_name_that_a_document_has(home: Path):
    frame = pl.DataFrame({"id": ["x", "x#copy1", "y##copy7"], "text": ["a", "b", "c"], "copies": [3, 2, 1]})
    columns = dict.fromkeys(("source", "domain"), pl.lit("text"))
    Output(home).side("train", frame.with_columns(**columns).lazy())
    ids = pl.read_parquet(home / "train.parquet")["id"].to_list()
    assert ids == ["x", "x#copy1", "y##copy7", "x###copy1", "x#copy1###copy1", "x###copy2"]


def test_a_column_that_may_be_a_typo_is_told_of(home: Path, capsys: pytest.CaptureFixture[str]):
    packed = home / "texts" / "0.jsonl.gz"
    packed.write_bytes(gzip.compress((home / "texts" / "0.jsonl").read_bytes()))
    curation = Curation(
        {"files": JsonLines(str(packed), domain_column="kindd", licence_column="kind")}, split=HashSplit(0.2)
    )
    curate(run=Run(home / "run"), curation=curation)
    said = capsys.readouterr().err
    assert "note: curation.sources.files.domain_column=kindd: no such column" in said
    assert "licence_column" not in said


def test_a_wanted_group_keeps_a_document(home: Path):
    rows = [{"text": f"word{n} the of and {n} " * 20, "kind": "a"} for n in range(40)]
    rows += [{"text": f"other{n} the of and {n} " * 600, "kind": "b"} for n in range(4)]
    (home / "few.jsonl").write_text("\n".join(map(json.dumps, rows)))
    curation = Curation(
        {"files": JsonLines(str(home / "few.jsonl"), domain_column="kind")},
        split=HashSplit(0.2),
        mixture=DomainMixture({"a": 10, "b": 1}),
    )
    outputs(home / "run", curation)
    assert "b" in pl.read_parquet(home / "run" / "train.parquet")["domain"].to_list()
