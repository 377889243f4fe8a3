"""One run of the training loop: what changes while it goes on, and how it is saved and taken up again."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from llm import runtime
from llm.checkpoints.local import LocalCheckpoints, load, newest_whole, require_same_architecture, resolve
from llm.checkpoints.manifest import weights_sha256
from llm.data.loader import InOrder, Loader
from llm.runs.progress import Progress
from llm.training.interrupts import Interrupts
from llm.training.state import FitResult, Position, TrainState
from llm.training.throughput import mfu, peak_flops
from llm.types import Algorithm, Batch, Callback, ConfigError, Splits

Schedule = Callable[[int, int], float]


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


@runtime_checkable
class Plan(Protocol):
    """How long and how much: the numbers of a `llm.training.trainer.Trainer`."""

    max_steps: int
    batch_size: int
    grad_accum_steps: int
    eval_every_steps: int
    eval_batches: int | None
    patience: int | None


class Session:
    """One call of `Trainer.fit`: what changes while it runs."""

    flops_per_token: float | None = None

    def __init__(
        self,
        plan: Plan,
        state: TrainState,
        algorithm: Algorithm,
        splits: Splits,
        schedule: Schedule,
        checkpoint: LocalCheckpoints,
        description: Mapping[str, Any],
        callbacks: Sequence[Callback],
    ) -> None:
        self.plan, self.state, self.algorithm, self.splits = plan, state, algorithm, splits
        self.schedule, self.checkpoint, self.description = schedule, checkpoint, description
        self.callbacks = callbacks
        self.run, self.engine, self.position = state.run, state.engine, state.position
        self.loader = Loader(splits.train, plan.batch_size, self.run.seed)
        micro_size = plan.batch_size // (plan.grad_accum_steps * self.engine.n_replicas)
        limit = plan.eval_batches * plan.batch_size if plan.eval_batches else None
        # without gradients twice the batch fits into the same memory
        self.validation = InOrder(splits.validation, 2 * micro_size, limit)
        self.directory = self.run.directory / "checkpoints"
        self.saved_step = -1
        self.val_metrics: dict[str, float] = {}
        self.collected: tuple[int, list[Batch]] = (-1, [])

    # ------------------------------------------------------------------------- the loop

    def train(self) -> None:
        """Steps, evaluations and checkpoints until the end, an early stop or an interrupt."""
        plan, position = self.plan, self.position
        left = max(plan.max_steps - position.step, 0)
        with Interrupts() as interrupts, self.run.progress("training", left) as bar:
            if position.evaluated_step < 0:
                self.run.log(self.evaluate(bar)[0], step=0)
            while position.step < plan.max_steps and not position.stopped_early:
                if self.engine.any(interrupts.asked):
                    self.save()
                    raise KeyboardInterrupt
                metrics = self.update()
                is_best = False
                if position.step % plan.eval_every_steps == 0 or position.step == plan.max_steps:
                    evaluated, is_best = self.evaluate(bar)
                    metrics |= evaluated
                self.run.log(metrics, step=position.step)
                bar.advance(1, loss=metrics["loss"])
                for callback in self.callbacks:
                    callback.on_step(self.state, metrics)
                keeps = is_best and self.checkpoint.keep_best
                if keeps or position.step % self.checkpoint.every_steps == 0:
                    self.save(best=keeps)
            if self.saved_step != position.step:
                self.save()
            if self.engine.any(interrupts.asked):  # in the very last step: whole, but the user said stop
                raise KeyboardInterrupt

    def update(self) -> dict[str, float]:
        """One optimizer step; its metrics."""
        began = time.perf_counter()
        position, step = self.position, self.position.step + 1
        # Dropout and sampling follow from the step's number, whatever happened before it in this process.
        torch.manual_seed(_seed_of(self.run.seed, step, self.engine.replica))
        scale = self.schedule(step - 1, self.plan.max_steps)
        metrics = self.engine.step(self.micro_batches(step), scale)
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            name = "loss" if not math.isfinite(metrics["loss"]) else "grad_norm"
            raise self.diverged(f"{name} is {metrics[name]}", step)
        position.step = step
        position.tokens += int(metrics["tokens"])
        rate = metrics["tokens"] / (time.perf_counter() - began)
        metrics |= {"tokens": position.tokens, "tokens_per_second": rate}
        metrics["memory_bytes"] = runtime.memory_bytes()
        share = mfu(rate, self.flops_per_token, peak_flops(self.engine.device), self.engine.n_replicas)
        return metrics if share is None else metrics | {"mfu": share}

    def micro_batches(self, step: int) -> list[Batch]:
        """This process's part of a step's data; on-policy algorithms reuse one collection for some steps."""
        n_micro, engine, algorithm = self.plan.grad_accum_steps, self.engine, self.algorithm
        turn = (step - 1) // algorithm.epochs_per_collect
        if self.collected[0] != turn:
            drawn = [
                self.loader.batch(turn, micro, n_micro, engine.replica, engine.n_replicas)
                for micro in range(n_micro)
            ]
            self.collected = (turn, self.collect(drawn))
        return self.collected[1]

    def collect(self, drawn: list[Batch]) -> list[Batch]:
        """What the algorithm makes of the data: an on-policy one (``on_policy = True``) generates."""

        def work(policy: nn.Module) -> list[Batch]:
            return [self.algorithm.collect(policy, batch) for batch in drawn]

        # `run` gathers the weights for sampling; who samples nothing should not pay for that
        on_policy = getattr(self.algorithm, "on_policy", False)
        return self.engine.run(work) if on_policy else work(self.engine.model)

    def evaluate(self, bar: Progress) -> tuple[dict[str, float], bool]:
        """The validation split's metrics, and whether they are the best so far."""
        n = len(self.validation)
        measured = self.engine.measure(self.validation, lambda i: bar.advance(0, val_loss=f"{i}/{n} batches"))
        bar.advance(0, val_loss=measured["loss"])
        self.val_metrics = {f"val_{name}": value for name, value in measured.items()}
        if width := self.splits.validation.bytes_per_target:
            self.val_metrics["val_bits_per_byte"] = measured["loss"] / math.log(2) / width
        is_best = self.position.note_evaluation(measured["loss"])
        patience = self.plan.patience or math.inf
        self.position.stopped_early = self.position.evaluations_without_gain >= patience
        return dict(self.val_metrics), is_best

    def diverged(self, what: str, step: int) -> DivergedError:
        """The error that says what happened, what is left and what to do."""
        last = newest_whole(self.directory) if self.directory.is_dir() else None
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return DivergedError(f"{what} at step {step}; {kept}; try a lower optimizer.lr or more warm-up")

    # ------------------------------------------------------------------------- checkpoints

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint, unless a weight is not a number: the next step would only then tell."""
        state = self.engine.state()
        bad = next((name for name, tensor in state["model"].items() if not tensor.isfinite().all()), None)
        if self.engine.any(bad is not None):
            raise self.diverged(f"{bad or 'a weight'} is no longer finite", self.position.step)
        if runtime.is_main():
            self.checkpoint.save(
                self.directory,
                step=self.position.step,
                model=state["model"],
                optimizer=state["optimizer"],
                state=self.position.plain() | {"val_metrics": self.val_metrics},
                description=self.description,
                tokenizer=self.splits.tokenizer,
                best=best,
            )
        self.engine.any(False)  # wait for the writer: torchrun kills all when one process ends early
        self.saved_step = self.position.step

    def resume(self, path: Path) -> None:
        """Goes back to a checkpoint: weights, optimizer, position and the metrics written so far."""
        place = _checkpoint_in(path)
        if place is None:
            if self.run.stage is None and any((path / "checkpoints").glob("step_*")):
                mend = "every checkpoint in it is torn; restore one of them, or start a new run"
                raise ConfigError("resume", path, mend)
            self.run.say(f"{path}: no whole checkpoint there yet; starting from step 0")
            self.run.rewind(-1)
            return
        saved = load(place, key="resume")
        if saved.state["seed"] != self.run.seed:
            mend = f"{place} was trained with seed {saved.state['seed']}: go on with that"
            raise ConfigError("seed", self.run.seed, mend)
        if saved.step > self.plan.max_steps:
            mend = f"{path} has made {saved.step} steps already: give at least as many"
            raise ConfigError("max_steps", self.plan.max_steps, mend)
        require_same_architecture(saved.model, self.engine.model, path, key="resume")
        self.engine.load_state({"model": saved.model, "optimizer": saved.optimizer})
        vars(self.position).update(vars(Position.restored(saved.state)))
        self.val_metrics = dict(saved.state["val_metrics"])
        self.saved_step = saved.step if place.parent == self.directory.resolve() else -1
        self.run.rewind(saved.step)
        self.run.say(f"going on from step {saved.step} of {self.plan.max_steps}")

    def conclude(self) -> FitResult:
        """The result, also put into the run's summary."""
        position = self.position
        assert position.val_loss is not None
        before = position.val_loss_before if position.val_loss_before is not None else math.nan
        lowest = position.best_val_loss if position.best_val_loss is not None else position.val_loss
        state = self.engine.state()
        digest = weights_sha256(state["model"]) if runtime.is_main() else ""
        best = self.directory / "best"
        last = self.directory / f"step_{position.step:06d}"
        self.run.summary.update(
            self.val_metrics,
            val_loss_before=before,
            best_val_loss=lowest,
            best_step=position.best_step,
            steps=position.step,
            stopped_early=position.stopped_early,
            tokens=position.tokens,
            weights_sha256=digest,
        )
        return FitResult(
            val_loss_before=before,
            val_loss=position.val_loss,
            best_val_loss=lowest,
            steps=position.step,
            tokens=position.tokens,
            stopped_early=position.stopped_early,
            checkpoint=last,
            best_checkpoint=best.resolve() if best.exists() else last,
            weights_sha256=digest,
        )


def _checkpoint_in(path: Path) -> Path | None:
    """The checkpoint to go on from; None when `path` is a run that was cut off before its first."""
    if (path / "checkpoints").is_dir():
        return newest_whole(path / "checkpoints")
    if path.is_dir() and not (path / "manifest.json").exists() and not any(path.glob("step_*")):
        return None
    return resolve(path, key="resume")


def _seed_of(seed: int, step: int, replica: int) -> int:
    """63 well mixed bits: neighbouring steps must not have neighbouring generators."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{replica}".encode()).digest()[:8], "big") >> 1
