"""task=lifecycle: what is computed again and what is not, also after a stage was cut off."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Main
from tests.processes import INTERRUPT, KILL, Command, forks

SHORT = (
    "task=lifecycle",
    "tracker=none",
    "tokenizer.vocab_size=300",
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.dropout=0.1",
    "checkpointing.every_steps=20",
    "stages.curate.curation.sources.embedded.packages=[rich]",
    "stages.curate.curation.sources.embedded.max_source_bytes=100000",
    *(f"stages.{stage}.data.seq_len=64" for stage in ("pretrain", "sft")),
    *(f"stages.{stage}.trainer.batch_size=4" for stage in ("pretrain", "sft")),
    *(f"stages.{stage}.trainer.eval_batches=2" for stage in ("pretrain", "sft")),
    *(f"stages.{stage}.trainer.eval_every_steps=50" for stage in ("pretrain", "sft")),
)
WHOLE = (
    *SHORT,
    "stages.pretrain.trainer.max_steps=30",
    "stages.sft.trainer.max_steps=10",
    "stages.dpo.data.seq_len=64",
    "stages.dpo.trainer.max_steps=5",
    "stages.dpo.trainer.batch_size=4",
    "stages.evaluate.sample_tokens=4",
)
TRAINING = (
    *SHORT,
    "stages.pretrain.trainer.max_steps=90",
    "stages.sft.trainer.max_steps=60",
    "~stages.dpo",
    "~stages.evaluate",
)
STAGES = ["curate", "tokenize", "pretrain", "sft", "dpo", "evaluate"]
CLOCK = ("seconds", "tokens_per_second", "memory_bytes")


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def reused(run: Path) -> list[str]:
    return [name for name, stage in result(run)["stages"].items() if stage["reused"]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def logged(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run less what the clock decides."""
    return [
        {name: value for name, value in line.items() if name not in CLOCK}
        for line in lines(run / "metrics.jsonl")
    ]


def weights(run: Path) -> dict[str, str]:
    return {
        name: stage["weights_sha256"]
        for name, stage in result(run)["stages"].items()
        if "weights_sha256" in stage
    }


def content(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole lifecycle was run once, as `first`."""
    home = tmp_path_factory.mktemp("life")
    done = Main(home)(*WHOLE, "run_dir=first")
    assert done.code == 0, done.err
    return home


def test_the_record_of_a_lifecycle(home: Path) -> None:
    first = result(home / "first")
    assert list(first["stages"]) == STAGES
    assert reused(home / "first") == []
    assert {line["stage"] for line in lines(home / "first" / "metrics.jsonl")} >= {"pretrain", "sft", "dpo"}
    assert first["metrics"]["pretrain"]["val_loss"] < first["metrics"]["pretrain"]["val_loss_before"]
    assert first["metrics"]["sft"]["val_loss"] < first["metrics"]["sft"]["val_loss_before"]
    assert {"pretrain", "sft", "dpo"} == set(weights(home / "first"))
    assert (home / "first" / "checkpoints" / "last" / "model.safetensors").is_file()
    page = (home / "first" / "report.html").read_text()
    assert all(stage in page for stage in STAGES)
    data = json.loads((home / "first" / "provenance.json").read_text())["data"]
    assert any(name.startswith("curate") for name in data)


def test_the_second_run_computes_nothing(home: Path) -> None:
    before = content(home / "artifacts")
    done = Main(home)(*WHOLE, "run_dir=second")
    assert done.code == 0, done.err
    assert reused(home / "second") == STAGES
    assert content(home / "artifacts") == before
    assert lines(home / "second" / "metrics.jsonl") == lines(home / "first" / "metrics.jsonl")
    assert result(home / "second")["metrics"] == result(home / "first")["metrics"]
    assert weights(home / "second") == weights(home / "first")
    assert "the report: " in done.err


def test_another_learning_rate_reuses_the_data_only(home: Path) -> None:
    done = Main(home)(*WHOLE, "run_dir=faster", "stages.pretrain.optimizer.lr=2e-3")
    assert done.code == 0, done.err
    assert reused(home / "faster") == ["curate", "tokenize"]
    assert not set(weights(home / "faster").values()) & set(weights(home / "first").values())


def test_what_cannot_matter_reuses_everything(home: Path) -> None:
    done = Main(home)(*WHOLE, "run_dir=saved_oftener", "checkpointing.every_steps=7", "name=other")
    assert done.code == 0, done.err
    assert reused(home / "saved_oftener") == STAGES


def test_a_damaged_artifact_is_made_again(home: Path) -> None:
    artifact = Path(result(home / "first")["stages"]["sft"]["directory"])
    (file,) = artifact.glob("checkpoints/step_000010/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    done = Main(home)(*WHOLE, "run_dir=mended")
    assert done.code == 0, done.err
    assert reused(home / "mended") == [stage for stage in STAGES if stage != "sft"]
    assert "is damaged" in done.err
    assert weights(home / "mended") == weights(home / "first")
    assert artifact.with_name(f"{artifact.name}.damaged-1").is_dir()  # nothing is lost
    assert file.is_file()


@pytest.mark.parametrize(
    ("override", "path", "there"),
    [
        ("stages.dpo.model.path=artifact://sfft", "stages.dpo.model.path", "curate, tokenize, pretrain, sft"),
        ("stages.sft.model.path=artifact://dpo", "stages.sft.model.path", "curate, tokenize, pretrain"),
        ("stages.curate.curation.sources.embedded.packages=['artifact://curate']",
         "stages.curate.curation.sources.embedded.packages.0", "none"),
    ],
)  # fmt: skip
def test_a_reference_to_no_earlier_stage_is_refused_before_the_first_one(
    main: Main, override: str, path: str, there: str
) -> None:
    done = main(*WHOLE, override)
    assert done.code == 2
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {path}=")
    assert error.endswith(f"no stage of that name before it; there are: {there}")
    assert not (main.home / "artifacts").exists()


def test_reproducing_computes_everything_again_and_is_bitwise_equal(home: Path) -> None:
    before = content(home / "artifacts")
    done = Main(home)(f"reproduce={home / 'first'}", "tracker=none", "allow_drift=true", "run_dir=again")
    assert done.code == 0, done.err
    assert "reproduced: bitwise equal" in done.err
    assert reused(home / "again") == []
    assert content(home / "artifacts") == before
    assert (home / "again" / "artifacts" / "pretrain").is_dir()
    assert weights(home / "again") == weights(home / "first")
    assert json.loads((home / "again" / "reproduction.json").read_text())["equal"] is True


# ----------------------------------------------------------------------------- cut off


@dataclass
class Cut:
    """An uninterrupted lifecycle, and how others are started beside it with its first artifacts at hand."""

    reference: Path

    def home(self, name: str, *stages: str) -> Path:
        home = self.reference.parent.with_name(name)
        home.mkdir()
        for stage in stages:
            shutil.copytree(self.reference.parent / "artifacts" / stage, home / "artifacts" / stage)
        return home

    def start(self, home: Path, *arguments: str) -> Command:
        return forks().start(*arguments, home=home)

    def assert_equal(self, run: Path) -> None:
        assert result(run)["status"] == "done"
        assert weights(run) == weights(self.reference)
        steps = Counter((line["stage"], line["step"]) for line in logged(run))
        assert max(steps.values()) == 1
        assert logged(run) == logged(self.reference)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    home = tmp_path_factory.mktemp("cut") / "reference"
    home.mkdir()
    under_way = forks().start(*TRAINING, "run_dir=run", home=home)
    assert under_way.wait() == 0, under_way.log.read_text()
    return Cut(home / "run")


def reached(home: Path, stage: str, n_lines: int) -> Callable[[], bool]:
    """Whether the stage that is being computed has logged so many lines; one may be half written."""

    def n_whole(log: Path) -> int:
        return log.read_text().count("\n") if log.is_file() else 0

    def check() -> bool:
        return any(
            n_whole(partial / "metrics.jsonl") >= n_lines
            for partial in (home / "artifacts" / stage).glob(".*.partial")
        )

    return check


def test_an_interrupted_lifecycle_goes_on_in_its_stage(cut: Cut) -> None:
    home = cut.home("interrupted", "curate", "tokenize")
    under_way = cut.start(home, *TRAINING, "run_dir=run")
    under_way.signal_after(INTERRUPT, 0, reached(home, "pretrain", 45))
    assert under_way.wait() == 130, under_way.log.read_text()
    assert result(home / "run")["status"] == "interrupted"
    (partial,) = (home / "artifacts" / "pretrain").glob(".*.partial")
    step = lines(partial / "metrics.jsonl")[-1]["step"]
    assert 40 < step < 90
    assert (partial / "checkpoints" / "last").resolve().name == f"step_{step:06d}"
    again = cut.start(home, "resume=run")
    assert again.wait() == 0, again.log.read_text()
    assert f"going on from step {step} of 90" in again.log.read_text()
    assert reused(home / "run") == ["curate", "tokenize"]
    cut.assert_equal(home / "run")


@pytest.mark.parametrize(
    ("stage", "n_lines", "before", "more"),
    [
        ("curate", 0, [], []),
        ("pretrain", 45, ["curate", "tokenize"], []),
        ("sft", 8, ["curate", "tokenize", "pretrain"], ["checkpointing.every_steps=1000"]),
    ],
    ids=["curate", "pretrain", "sft before its first checkpoint"],
)
@pytest.mark.parametrize("by_resume", [True, False], ids=["resume", "same command"])
def test_a_killed_lifecycle_goes_on(
    cut: Cut, stage: str, n_lines: int, before: list[str], more: list[str], by_resume: bool
) -> None:
    home = cut.home(f"killed-{stage}-{by_resume}", *before)
    under_way = cut.start(home, *TRAINING, *more, "run_dir=run")
    under_way.signal_after(KILL, 0, reached(home, stage, n_lines))
    assert under_way.wait() == -KILL, under_way.log.read_text()
    assert result(home / "run")["status"] == "running"
    again = (
        cut.start(home, "resume=run") if by_resume else cut.start(home, *TRAINING, *more, "run_dir=second")
    )
    assert again.wait() == 0, again.log.read_text()
    if stage == "pretrain":
        assert "going on from step " in again.log.read_text()
    assert reused(home / ("run" if by_resume else "second")) == before
    cut.assert_equal(home / ("run" if by_resume else "second"))
