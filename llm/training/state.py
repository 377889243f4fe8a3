"""How far training is: what a checkpoint's `state.json` says, and what callbacks see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llm.parallelism.base import Engine
from llm.runs.run import Run
from llm.types import Tokenizer


@dataclass
class Position:
    """Progress of training in plain values; the data's order, dropout and schedule follow from `step`.

    Attributes:
        step: optimizer steps made.
        tokens: tokens read by them, over all processes.
        seed: the run's; another one would be another order of the data.
        val_loss_before: validation loss of the initial weights.
        val_loss: the latest one, and `evaluated_step` when it was taken.
        best_val_loss: the lowest, at `best_step`.
        evaluations_without_gain: since then.
        stopped_early: patience ran out.
    """

    step: int = 0
    tokens: int = 0
    seed: int = 0
    val_loss_before: float | None = None
    val_loss: float | None = None
    evaluated_step: int = -1
    best_val_loss: float | None = None
    best_step: int = 0
    evaluations_without_gain: int = 0
    stopped_early: bool = False

    def note_evaluation(self, val_loss: float) -> bool:
        """Takes a validation loss down; True when it is the lowest after the first step."""
        self.val_loss, self.evaluated_step = val_loss, self.step
        if self.step == 0:
            self.val_loss_before = val_loss
            return False
        best = math.inf if self.best_val_loss is None else self.best_val_loss
        if val_loss < best:
            self.best_val_loss, self.best_step, self.evaluations_without_gain = val_loss, self.step, 0
            return True
        self.evaluations_without_gain += 1
        return False

    def plain(self) -> dict[str, Any]:
        """For `state.json`."""
        return asdict(self)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Position:
        """From `state.json`; keys of other versions are passed over."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass(frozen=True)
class TrainState:
    """What a callback sees. Call the model through ``engine.run(lambda model: ...)``, on all processes."""

    run: Run
    engine: Engine
    tokenizer: Tokenizer
    position: Position

    @property
    def step(self) -> int:
        """Optimizer steps made."""
        return self.position.step


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        val_loss_before: validation loss of the initial weights.
        val_loss: of the final weights.
        best_val_loss: the lowest at any evaluation after the first step.
        steps: optimizer steps made, also in earlier sessions of a resumed run.
        tokens: tokens read by them.
        stopped_early: patience ran out before `max_steps`.
        checkpoint: the final weights.
        best_checkpoint: those of `best_val_loss` when they were kept, else the final ones.
        weights_sha256: digest of the final weights; empty on all processes but the first.
    """

    val_loss_before: float
    val_loss: float
    best_val_loss: float
    steps: int
    tokens: int
    stopped_early: bool
    checkpoint: Path
    best_checkpoint: Path
    weights_sha256: str
