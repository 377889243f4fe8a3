"""Killed at any moment, a curation goes on to the same bytes, and no document is lost from the account."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.curation import small_corpus
from tests.processes import KILL, Command, Spawned, Starter, forks, wait_until

N_KILLS = 10
OUTPUTS = ("train.parquet", "validation.parquet", "ledger.parquet", "summary.json")


class Kitchen:
    """One uninterrupted run, and how further ones are started."""

    def __init__(self, home: Path, starter: Starter) -> None:
        self.home, self.starter = home, starter
        small_corpus.write(home / "texts")
        under_way = self.begin("reference")
        self.n_marks = 0

        def over() -> bool:
            self.n_marks = max(self.n_marks, marks(home / "reference"))
            return (home / "reference" / "done.json").is_file()

        wait_until(over, lambda: not under_way.is_running(), pause=0.01)
        assert under_way.wait() == 0, under_way.log.read_text()
        self.expected = digests(home / "reference")

    def begin(self, name: str) -> Command:
        options = [
            "curation=files",
            "curation/source@curation.sources.files=jsonl",
            "curation.attributes=null",
        ]
        options += ["curation.sources.files.path=texts", "curation.sources.files.domain_column=kind"]
        options += ["curation.shard_bytes=20000", "curation.split.validation_fraction=0.2", "tracker=none"]
        return self.starter.start("task=curate", *options, f"run_dir={name}", home=self.home)

    def resume(self, name: str) -> Command:
        """`resume=RUN`; a run that was killed before it wrote its config is the same command again."""
        if (self.home / name / "config.yaml").is_file():
            return self.starter.start(f"resume={name}", home=self.home)
        return self.begin(name)


def marks(run: Path) -> int:
    """Pieces of work that are on disk for good: it only grows."""
    return sum(name.endswith(".json") for _, _, names in os.walk(run / "work") for name in names)


def digests(run: Path) -> dict[str, str]:
    assert not list(run.glob(".*.tmp"))
    assert not (run / "work").exists()
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in OUTPUTS}


def check_account(work: Path) -> int:
    """Of every shard in every pass: documents before + changes = documents left. How many were read."""
    seen = 0
    height: dict[str, int] = {}
    for folder in sorted(work.glob("[0-9]*")):
        shards = [path.stem for path in sorted(folder.glob("*.json")) if path.stem not in ("whole", "plan")]
        if folder.name == "00-read":
            parts = [json.loads((folder / f"{stem}.json").read_text()) for stem in shards]
            for part in parts:
                counts = part["counts"][0]
                left = counts["documents_in"] + sum(change(folder, shard) for shard in part["shards"])
                assert left == counts["documents_out"]
                seen += counts["documents_in"]
            continue
        for shard in shards:
            counts = [
                c for c in json.loads((folder / f"{shard}.json").read_text())["counts"] if c["bytes_in"]
            ]
            if counts:
                assert counts[0]["documents_in"] + change(folder, shard) == counts[-1]["documents_out"]
                assert height.get(shard, counts[0]["documents_in"]) == counts[0]["documents_in"]
                height[shard] = counts[-1]["documents_out"]
            if (folder / f"{shard}.parquet").is_file() and counts:
                assert pl.read_parquet(folder / f"{shard}.parquet").height == height[shard]
    return seen


def change(folder: Path, shard: str) -> int:
    path = folder / f"{shard}.ledger.parquet"
    return int(pl.read_parquet(path)["change"].sum()) if path.is_file() else 0


def check_kills(kitchen: Kitchen) -> None:
    rng = random.Random(4)
    total = json.loads((kitchen.home / "reference" / "summary.json").read_text())["documents"]["read"]
    caught = 0
    for number in range(N_KILLS):
        after = rng.randint(1, kitchen.n_marks)
        name = f"killed-{number}"
        under_way = kitchen.begin(name)
        under_way.signal_after(
            KILL, rng.random() / 50, lambda at=after, run=name: marks(kitchen.home / run) >= at
        )
        code = under_way.wait()
        work = kitchen.home / name / "work"
        if work.is_dir():
            caught += 1
            assert check_account(work) <= total
        if code != 0:
            again = kitchen.resume(name)
            assert again.wait() == 0, again.log.read_text()
        assert digests(kitchen.home / name) == kitchen.expected, f"killed after {after} marks"
    assert caught >= N_KILLS // 2, "the kills fell before or after the work"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return Kitchen(tmp_path_factory.mktemp("kitchen"), forks())


def test_killed_at_ten_moments_and_resumed(kitchen: Kitchen):
    check_kills(kitchen)


@pytest.mark.slow
def test_killed_at_ten_moments_as_typed(tmp_path: Path, request: pytest.FixtureRequest):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("minutes of starting python: pytest -m slow")
    check_kills(Kitchen(tmp_path, Spawned()))


def test_a_finished_run_with_another_setting_starts_anew(kitchen: Kitchen):
    before = json.loads((kitchen.home / "reference" / "summary.json").read_text())
    shutil.copytree(kitchen.home / "reference", kitchen.home / "run")
    again = kitchen.starter.start("resume=run", "curation.steps.quality.min_words=75", home=kitchen.home)
    assert again.wait() == 0, again.log.read_text()
    after = json.loads((kitchen.home / "run" / "summary.json").read_text())
    assert after["documents"]["read"] == before["documents"]["read"]
    assert after["documents"]["train"] < before["documents"]["train"]
