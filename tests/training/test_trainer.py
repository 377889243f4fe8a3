"""The training loop: what it logs, when it stops, and that a run cut off anywhere ends with the same bits."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.checkpoints.local import LocalCheckpoints, load, load_model
from llm.parallelism.precision import Precision
from llm.parallelism.single import Single
from llm.runs.directory import read_metrics
from llm.runs.run import Run
from llm.tokenizers import byte
from llm.training.losses import NextToken
from llm.training.session import DivergedError
from llm.training.state import FitResult
from llm.training.trainer import Trainer
from llm.types import Batch, ConfigError
from tests.training import tiny


class At:
    """A callback that does something once, after step `step`."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        if state.step == self.step:
            self.action(state)


class CutOffError(Exception):
    """Stands for whatever ends a process."""


def cut_off(state: Any) -> None:
    raise CutOffError


def fit(directory: Path, *, seed: int = 3, **changes: Any) -> FitResult:
    """A short run with dropout; keys of the trainer, of `fit` and of the model may be changed."""
    numbers = {"max_steps": 30, "batch_size": 8, "grad_accum_steps": 2, "eval_every_steps": 6}
    numbers |= {key: changes.pop(key) for key in (*numbers, "patience", "eval_batches") if key in changes}
    model = {"dropout": 0.2, "n_layers": 1} | changes.pop("model", {})
    arguments: dict[str, Any] = {
        "algorithm": NextToken(),
        "splits": tiny.splits(),
        "optimizer": tiny.optimizer,
        "schedule": tiny.schedule,
        "parallelism": Single(),
        "precision": Precision(),
        "checkpoint": LocalCheckpoints(every_steps=5, keep=3),
        "model_config": {**tiny.MODEL, **model},
    }
    return Trainer(**numbers).fit(
        run=Run(directory, seed=seed), model=tiny.model(**model), **{**arguments, **changes}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult]:
    """A run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, fit(directory)


def without_clock(directory: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "tokens_per_second", "memory_bytes")
    return [
        {k: v for k, v in line.items() if k not in clock}
        for line in read_metrics(directory / "metrics.jsonl")
    ]


# ----------------------------------------------------------------------------- what it leaves


def test_the_loss_falls_and_every_step_is_logged(whole: tuple[Path, FitResult]) -> None:
    directory, result = whole
    lines = read_metrics(directory / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(31))
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 6, 12, 18, 24, 30]
    for line in lines[1:]:
        assert line["loss"] > 0
        assert line["grad_norm"] > 0
        assert line["lr"] == 3e-3 * tiny.schedule(line["step"] - 1, 30)
        assert line["tokens"] == line["step"] * 8 * tiny.SEQ_LEN
        assert line["tokens_per_second"] > 0
        assert line["memory_bytes"] > 1e6
        assert "mfu" not in line, "a CPU's peak is not known"
    assert result.val_loss_before == lines[0]["val_loss"] == pytest.approx(math.log(tiny.VOCAB), abs=0.1)
    assert result.val_loss == lines[-1]["val_loss"] < result.val_loss_before - 0.3
    assert result.best_val_loss == min(line["val_loss"] for line in lines[1:] if "val_loss" in line)
    assert (result.steps, result.tokens, result.stopped_early) == (30, 30 * 8 * tiny.SEQ_LEN, False)
    assert lines[-1]["val_bits_per_byte"] == pytest.approx(result.val_loss / math.log(2))


def test_the_checkpoint_holds_the_final_weights(whole: tuple[Path, FitResult], tmp_path: Path) -> None:
    result = fit(tmp_path, splits=tiny.splits()._replace(tokenizer=byte.train([])), info={"chat": True})
    assert result.checkpoint == tmp_path / "checkpoints" / "step_000030"
    model, _, info = load_model(tmp_path)
    assert (info["step"], info["chat"]) == (30, True)
    batch = tiny.splits().validation.batch(range(21))
    with torch.no_grad():
        loss, _ = NextToken().loss(model, batch)
    assert loss.item() == pytest.approx(result.val_loss, abs=1e-5)
    assert result.weights_sha256 == whole[1].weights_sha256


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    """With a learning rate that ruins the model after a while."""

    def ruin(step: int, total_steps: int) -> float:
        return 1.0 if step < 12 else 300.0

    result = fit(tmp_path, schedule=ruin)
    assert result.best_checkpoint.name == "step_000012"
    assert load(result.best_checkpoint).state["val_loss"] == result.best_val_loss < result.val_loss


def test_patience_stops_early(tmp_path: Path) -> None:
    result = fit(tmp_path, schedule=lambda step, _: 1.0 if step < 12 else 300.0, patience=2, max_steps=1000)
    assert result.stopped_early
    assert result.steps == 24
    assert result.checkpoint.name == "step_000024"
    again = fit(
        tmp_path, schedule=lambda step, _: 1.0, patience=2, max_steps=1000, resume_from=tmp_path
    )  # resumed, it stays stopped
    assert again.weights_sha256 == result.weights_sha256


def test_the_summary_has_what_result_json_needs(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=3)
    model = tiny.model()
    result = Trainer(max_steps=2, batch_size=4, eval_every_steps=1).fit(
        run=run,
        algorithm=NextToken(),
        model=model,
        splits=tiny.splits(),
        optimizer=tiny.optimizer,
        schedule=tiny.schedule,
        parallelism=Single(),
        precision=Precision(dtype="bfloat16"),
        checkpoint=LocalCheckpoints(),
        model_config=tiny.MODEL,
    )
    assert run.summary["val_loss"] == result.val_loss
    assert run.summary["weights_sha256"] == result.weights_sha256
    assert run.summary["tokens"] == 2 * 4 * tiny.SEQ_LEN
    json.dumps(run.result())


def test_eval_batches_caps_an_evaluation(tmp_path: Path) -> None:
    seen: set[int] = set()

    class Watched(tiny.Counting):
        def batch(self, indices: Any) -> Batch:
            seen.update(indices)
            return super().batch(indices)

    splits = tiny.splits()._replace(validation=Watched(21, seed=2))
    fit(tmp_path, splits=splits, max_steps=1, eval_batches=2)
    assert seen == set(range(16))


# ----------------------------------------------------------------------------- cut off and resumed


@pytest.mark.parametrize("step", [3, 17, 18])
def test_a_resumed_run_ends_with_the_same_bits(
    step: int, whole: tuple[Path, FitResult], tmp_path: Path
) -> None:
    with pytest.raises(CutOffError):
        fit(tmp_path, callbacks=[At(step, cut_off)])
    # whatever the next process did before must not matter
    torch.manual_seed(99)
    resumed = fit(tmp_path, resume_from=tmp_path)
    assert resumed.weights_sha256 == whole[1].weights_sha256
    assert without_clock(tmp_path) == without_clock(whole[0])
    ours, theirs = load(tmp_path), load(whole[0])
    assert ours.state == theirs.state
    for name, tensor in theirs.optimizer.items():
        assert torch.equal(ours.optimizer[name], tensor)


def test_dropout_is_really_on(whole: tuple[Path, FitResult], tmp_path: Path) -> None:
    assert fit(tmp_path, model={"dropout": 0.0}).weights_sha256 != whole[1].weights_sha256


def test_another_seed_is_another_run(whole: tuple[Path, FitResult], tmp_path: Path) -> None:
    assert fit(tmp_path, seed=4).weights_sha256 != whole[1].weights_sha256


def test_a_torn_checkpoint_costs_only_time(whole: tuple[Path, FitResult], tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        fit(tmp_path, callbacks=[At(17, cut_off)])
    newest = (tmp_path / "checkpoints" / "last").resolve()
    (newest / "optimizer.safetensors").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="optimizer.safetensors"):
        resumed = fit(tmp_path, resume_from=tmp_path)
    assert resumed.weights_sha256 == whole[1].weights_sha256
    assert without_clock(tmp_path) == without_clock(whole[0])


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    first = fit(tmp_path, max_steps=6)
    written = (tmp_path / "metrics.jsonl").read_text()
    second = fit(tmp_path, max_steps=6, resume_from=tmp_path)
    assert second == first
    assert (tmp_path / "metrics.jsonl").read_text() == written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_whole_checkpoint(
    number: signal.Signals, whole: tuple[Path, FitResult], tmp_path: Path
) -> None:
    before = signal.getsignal(number)

    class InTheMiddle(NextToken):
        """The signal comes while step 8 is computed; that step is finished."""

        steps = 0

        def units(self, batch: Batch) -> int:
            self.steps += 1
            if self.steps == 2 * 3 + 2 * 7 + 1:  # the evaluation before, two micro-batches a step
                os.kill(os.getpid(), number)
            return super().units(batch)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, algorithm=InTheMiddle(), splits=tiny.splits())
    assert signal.getsignal(number) == before
    stopped = load(tmp_path / "checkpoints" / "last").step
    assert stopped == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"]
    assert 6 < stopped < 10
    assert fit(tmp_path, resume_from=tmp_path).weights_sha256 == whole[1].weights_sha256


def test_an_exploding_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def poison(state: Any) -> None:
        with torch.no_grad():
            next(state.engine.model.parameters()).fill_(math.nan)

    checkpoint = LocalCheckpoints(every_steps=4)
    with pytest.raises(DivergedError, match=r"loss is nan at step 14; .*step_000012"):
        fit(tmp_path / "loss", callbacks=[At(13, poison)], checkpoint=checkpoint)
    with pytest.raises(DivergedError, match=r"embedding.weight is no longer finite at step 8; .*step_000006"):
        fit(tmp_path / "weights", callbacks=[At(8, poison)], checkpoint=checkpoint)
    for name, step in (("loss", 12), ("weights", 6)):
        found = load(tmp_path / name)
        assert found.step == step
        assert all(tensor.isfinite().all() for tensor in found.model.values())


# ----------------------------------------------------------------------------- users' mistakes


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="nearest: 10, 15") as mistake:
        Trainer(max_steps=1, batch_size=12, grad_accum_steps=5, eval_every_steps=1)
    assert (mistake.value.key, mistake.value.value) == ("batch_size", 12)
    with pytest.raises(ConfigError, match="nearest: 5"):
        Trainer.check_arguments(batch_size=2, grad_accum_steps=5)


def test_mistakes_in_what_is_resumed(tmp_path: Path) -> None:
    fit(tmp_path / "run", max_steps=6)
    for key, words, changes in (
        ("resume", "no such directory", {"resume_from": tmp_path / "nowhere"}),
        ("resume", "another architecture", {"model": {"d_model": 48}, "resume_from": tmp_path / "run"}),
        ("seed", "seed 3", {"seed": 4, "resume_from": tmp_path / "run"}),
    ):
        with pytest.raises(ConfigError, match=words) as mistake:
            fit(tmp_path / "other", **changes)  # type: ignore[arg-type]
        assert mistake.value.key == key


def test_a_run_cut_off_before_its_first_checkpoint_starts_anew(
    whole: tuple[Path, FitResult], tmp_path: Path
) -> None:
    with pytest.raises(CutOffError):
        fit(tmp_path, callbacks=[At(2, cut_off)])
    assert not (tmp_path / "checkpoints").exists()
    assert fit(tmp_path, resume_from=tmp_path).weights_sha256 == whole[1].weights_sha256
    assert without_clock(tmp_path) == without_clock(whole[0])
