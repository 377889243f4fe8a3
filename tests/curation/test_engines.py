"""Every engine does the same work; mistakes with them cost one line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm.curation.engines import Engine, Polars, Ray
from llm.curation.exact_dedup import ExactDedup
from llm.curation.jsonl import JsonLines
from llm.curation.leaks import LeakRemoval
from llm.curation.pipeline import Curation
from llm.curation.quality import GopherQuality
from llm.curation.split import HashSplit
from llm.runs.run import Run
from llm.tasks.curate import curate
from llm.types import ConfigError
from tests.curation import small_corpus

OUTPUTS = ("train.parquet", "validation.parquet", "ledger.parquet", "summary.json", "run.log")


def outputs(place: Path, source: Path, engine: Engine) -> dict[str, str]:
    curation = Curation(
        sources={"files": JsonLines(str(source), domain_column="kind")},
        steps={"exact_dedup": ExactDedup(), "quality": GopherQuality()},
        split=HashSplit(0.2),
        leaks=LeakRemoval(),
        engine=engine,
        shard_bytes=8000,
    )
    curate(run=Run(place), curation=curation)
    return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in OUTPUTS}


@pytest.mark.distributed
def test_engines_leave_the_same_bytes(tmp_path: Path):
    source = small_corpus.write(tmp_path / "texts")
    expected = outputs(tmp_path / "one", source, Polars())
    assert outputs(tmp_path / "two", source, Polars(n_workers=2)) == expected
    pytest.importorskip("ray")
    assert outputs(tmp_path / "ray", source, Ray(n_cpus=2)) == expected


def inverse(number: int) -> float:
    return 1 / number


def last_words(_: int) -> None:
    os._exit(9)


@pytest.mark.distributed
def test_a_worker_that_dies_is_a_line_and_an_error_is_itself():
    with Polars(n_workers=2) as engine:
        assert sorted(engine.map(inverse, [1, 2, 4])) == [0.25, 0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            list(engine.map(inverse, [0]))
        with pytest.raises(ConfigError, match="a worker was killed") as caught:
            list(engine.map(last_words, [1]))
    assert caught.value.key == "curation.engine.n_workers"


def test_no_ray_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[ray\]'") as caught, Ray():
        pass
    assert caught.value.key == "curation.engine"


def test_no_cluster_at_the_address(monkeypatch):
    def init(**_: object) -> None:
        raise ConnectionError("nobody\nanswers")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    with pytest.raises(ConfigError, match=r"no Ray cluster there \(nobody answers\)") as caught, Ray("there"):
        pass
    assert caught.value.key == "curation.engine.address"
