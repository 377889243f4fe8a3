"""The training loop of pretraining and of every alignment algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from llm import runtime
from llm.checkpoints.local import LocalCheckpoints
from llm.models.parametrization.base import learning_rates
from llm.optimizers.groups import with_rates
from llm.parallelism.base import MakeOptimizer, Parallelism, data_mesh
from llm.parallelism.precision import Precision
from llm.runs.run import Run
from llm.training.session import Schedule, Session
from llm.training.state import FitResult, Position, TrainState
from llm.types import Algorithm, Callback, ConfigError, Splits

Count = Annotated[int, Field(gt=0)]


class Trainer:
    """How long to train, how much at once, and how often to look.

    Args:
        max_steps: Optimizer steps.
        batch_size: Sequences (pairs) of one step, over all processes and micro-batches.
        grad_accum_steps: Micro-batches a process runs one after the other in a step.
        eval_every_steps: Steps between evaluations; there is one before the first and one after the last too.
        eval_batches: How many times `batch_size` sequences an evaluation reads; the whole split when None.
        clip_norm: Largest norm of the whole gradient (Pascanu et al. 2013); None does not clip.
        patience: Stop after so many evaluations in a row without a new lowest validation loss.

    Raises:
        ConfigError: `batch_size` cannot be split into `grad_accum_steps` equal parts.
    """

    def __init__(
        self,
        *,
        max_steps: Count,
        batch_size: Count,
        eval_every_steps: Count,
        grad_accum_steps: Count = 1,
        eval_batches: Count | None = None,
        clip_norm: Annotated[float, Field(gt=0)] | None = 1.0,
        patience: Count | None = None,
    ) -> None:
        self.check_arguments(batch_size=batch_size, grad_accum_steps=grad_accum_steps)
        self.max_steps, self.batch_size, self.grad_accum_steps = max_steps, batch_size, grad_accum_steps
        self.eval_every_steps, self.eval_batches = eval_every_steps, eval_batches
        self.clip_norm, self.patience = clip_norm, patience

    @staticmethod
    def check_arguments(*, batch_size: int, grad_accum_steps: int = 1) -> None:
        """Refuses a batch that micro-batches cannot share equally."""
        _require_divisible(batch_size, grad_accum_steps, f"grad_accum_steps={grad_accum_steps}")

    def fit(
        self,
        *,
        run: Run,
        algorithm: Algorithm,
        model: nn.Module,
        splits: Splits,
        optimizer: MakeOptimizer,
        schedule: Schedule,
        parallelism: Parallelism,
        precision: Precision,
        checkpoint: LocalCheckpoints,
        model_config: Mapping[str, Any],
        info: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callback] = (),
        resume_from: Path | None = None,
        flops_per_token: float | None = None,
    ) -> FitResult:
        """Trains `model` in place; checkpoints go to ``run.directory / "checkpoints"``.

        Everything a step does follows from the run's seed and the step's number, so a run resumed from a
        checkpoint ends with the same bits as one that was never cut off.

        Args:
            run: Takes the metrics and the final summary.
            algorithm: What a step lowers.
            model: The initial policy.
            splits: Training and validation data with their tokenizer.
            optimizer: Makes the optimizer from named parameters.
            schedule: Multiplier of the learning rate from (updates made, `max_steps`).
            parallelism: How the work is split over processes.
            precision: Number format of the forward and backward pass.
            checkpoint: When checkpoints are written and which stay.
            model_config: The model's resolved config node, so that a checkpoint can be built without its run.
            info: Facts about the model for those who load it, as ``{"chat": True}``.
            callbacks: Called after each step, on all processes.
            resume_from: A run's directory or a checkpoint to go on from; one without checkpoints starts anew.
            flops_per_token: For `mfu`, forward and backward.

        Raises:
            ConfigError: the processes cannot share the batch, or the checkpoint does not fit.
            DivergedError: the loss became NaN or infinite; the last checkpoint is older than that.
            KeyboardInterrupt: Ctrl-C or SIGTERM came; a whole checkpoint has been written.
        """
        model.to(runtime.device())
        algorithm.setup(model)
        engine = parallelism.prepare(
            model,
            with_rates(optimizer, learning_rates(model)),
            data_mesh(),
            loss=algorithm.loss,
            precision=precision,
            clip_norm=self.clip_norm,
            units=algorithm.units,
        )
        shares = engine.n_replicas * self.grad_accum_steps
        mend = f"{engine.n_replicas} processes x grad_accum_steps={self.grad_accum_steps}"
        _require_divisible(self.batch_size, shares, mend)
        description = {
            "config": dict(model_config),
            "vocab_size": model.vocab_size,
            "max_seq_len": model.max_seq_len,
            "info": dict(info or {}),
        }
        position = Position(seed=run.seed)
        state = TrainState(run, engine, splits.tokenizer, position)
        session = Session(self, state, algorithm, splits, schedule, checkpoint, description, tuple(callbacks))
        session.flops_per_token = flops_per_token
        if resume_from is not None:
            session.resume(resume_from)
        session.train()
        return session.conclude()


def _require_divisible(batch_size: int, parts: int, meaning: str) -> None:
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        nearest = f"{below}, {above}" if below else str(above)
        raise ConfigError("batch_size", batch_size, f"is not divisible by {meaning}; nearest: {nearest}")
