"""task=align: teach a trained model by conversations (SFT) or by rankings (DPO)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from llm.checkpoints.pretrained import Pretrained
from llm.models.accounting import count_parameters, count_trained
from llm.runs.run import Run
from llm.training.trainer import Trainer
from llm.types import Algorithm, Callback, TrainingData

VERSION = 1


def align(
    *,
    run: Run,
    model: Pretrained,
    data: TrainingData,
    alignment: Algorithm,
    optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Callable[[int, int], float],
    trainer: Trainer,
    precision: Any,
    parallelism: Any,
    checkpointing: Any,
    callbacks: Mapping[str, Callback] | None = None,
    resume: str | None = None,
) -> float:
    """Trains an already trained `model` with an alignment algorithm.

    Args:
        run: Where records and checkpoints go.
        model: The model to start from, with its tokenizer.
        data: Conversations or preferences, as the algorithm needs.
        alignment: The algorithm: its loss, and what it keeps of the initial model.
        optimizer: Makes the optimizer from named parameters.
        schedule: Learning-rate multiplier from (step, total steps).
        trainer: The training loop.
        precision: The number format of the forward pass.
        parallelism: How the work is split over processes.
        checkpointing: When checkpoints are written and which are kept.
        callbacks: Called after each optimizer step.
        resume: A run to go on from; the launcher has already taken its config and directory.

    Returns:
        The final validation loss of the algorithm.
    """
    start, tokenizer, info = model.load(run)
    policy = cast(nn.Module, start)
    splits = data.load(lambda _: tokenizer, run.directory / "data")
    n_params, n_trained = count_parameters(policy), count_trained(policy)
    if n_trained < n_params:
        run.say(f"{n_trained:,} of {n_params:,} parameters are trained ({n_trained / n_params:.2%})")
    run.say(f"{n_params:,} parameters from step {info['step']}; {len(splits.train):,} training examples")
    result = trainer.fit(
        run=run,
        algorithm=alignment,
        model=policy,
        splits=splits,
        optimizer=optimizer,
        schedule=schedule,
        parallelism=parallelism,
        precision=precision,
        checkpoint=checkpointing,
        model_config=info["config"],
        info={"chat": True},
        callbacks=list((callbacks or {}).values()),
        resume_from=run.directory if resume else None,
    )
    run.summary.update(n_params=n_params)
    return result.val_loss
