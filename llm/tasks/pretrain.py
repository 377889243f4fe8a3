"""task=pretrain: next-token training of a fresh model, or of a trained one that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from llm.checkpoints.pretrained import Pretrained, require_context
from llm.checkpoints.recipe import recipe_of
from llm.models.accounting import count_parameters, count_trained, flops_per_token
from llm.models.decoder import Decoder
from llm.models.encoder_decoder import EncoderDecoder
from llm.runs.run import Run
from llm.tokenizers.base import same
from llm.training.losses import NextToken
from llm.training.trainer import Trainer
from llm.types import Callback, ConfigError, Dataset, Tokenizer, TrainingData

VERSION = 1

N_MEASURED = 16
"""Sequences whose lengths tell those of all."""


def pretrain(
    *,
    run: Run,
    data: TrainingData,
    model: Callable[..., nn.Module] | Pretrained,
    optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Callable[[int, int], float],
    trainer: Trainer,
    precision: Any,
    parallelism: Any,
    checkpointing: Any,
    tokenizer: Callable[[Iterable[str]], Tokenizer] | None = None,
    callbacks: Mapping[str, Callback] | None = None,
    published: Mapping[str, Any] | None = None,
    resume: str | None = None,
) -> float:
    """Trains `model` on `data`.

    Args:
        run: Where records and checkpoints go.
        data: Loads the training and validation sequences.
        model: Makes the model, given its vocabulary size and longest sequence; or a trained one to go on
            with, which brings its own tokenizer.
        optimizer: Makes the optimizer from named parameters.
        schedule: Learning-rate multiplier from (step, total steps).
        trainer: The training loop.
        precision: The number format of the forward pass.
        parallelism: How the work is split over processes.
        checkpointing: When checkpoints are written and which are kept.
        tokenizer: Makes a tokenizer from texts; None when the data brings its own.
        callbacks: Called after each optimizer step.
        published: A result of the same recipe elsewhere, set beside ours in the report.
        resume: A run to go on from; the launcher has already taken its config and directory.

    Returns:
        The final validation loss in nats per token.
    """

    def make_tokenizer(texts: Iterable[str]) -> Tokenizer:
        if tokenizer is None:
            raise ConfigError(
                "tokenizer", None, "this data brings no tokenizer of its own: choose one, as tokenizer=bpe"
            )
        return tokenizer(texts)

    if isinstance(model, Pretrained):
        start, trained_with, info = model.load(run)
        require_context(start, data.seq_len)
        splits = data.load(lambda _: trained_with, run.directory / "data")
        if not same(trained_with, splits.tokenizer):
            mend = "its tokens were made with another tokenizer than the model's; make them again with"
            raise ConfigError("data", type(data).__name__, f"{mend} tokenizer=saved tokenizer.directory=...")
        run.say(f"the model goes on with its own tokenizer, of {trained_with.vocab_size:,} ids")
        fresh, recipe = cast(nn.Module, start), info["config"]
        chats = bool(info.get("chat"))
    else:
        splits = data.load(make_tokenizer, run.directory / "data")
        fresh = model(vocab_size=splits.tokenizer.vocab_size, max_seq_len=data.seq_len)
        fresh.init_weights(torch.Generator().manual_seed(run.seed))  # type: ignore[operator]
        recipe, chats = recipe_of(model), False
    n_params, n_trained = count_parameters(fresh), count_trained(fresh)
    if n_trained < n_params:
        run.say(f"{n_trained:,} of {n_params:,} parameters are trained ({n_trained / n_params:.2%})")
    run.say(f"{n_params:,} parameters, {len(splits.train):,} training sequences of {data.seq_len} tokens")
    result = trainer.fit(
        run=run,
        algorithm=NextToken(),
        model=fresh,
        splits=splits,
        optimizer=optimizer,
        schedule=schedule,
        parallelism=parallelism,
        precision=precision,
        checkpoint=checkpointing,
        model_config=recipe,
        info={"chat": True} if chats else None,
        flops_per_token=3 * _flops_per_token(fresh, splits.train, data.seq_len),
        callbacks=list((callbacks or {}).values()),
        resume_from=run.directory if resume else None,
    )
    run.summary.update(n_params=n_params, **({"published": dict(published)} if published else {}))
    return result.val_loss


def _flops_per_token(model: nn.Module, train: Dataset, seq_len: int) -> float:
    """Of a forward pass; with an encoder the mean over source and target, at the lengths of a few sequences.

    Raises:
        ConfigError: the sequences do not begin with what the model's decoder starts from.
    """
    if not isinstance(model, EncoderDecoder):
        return flops_per_token(cast(Decoder, model), seq_len)
    few = train.batch(range(min(len(train), N_MEASURED)))
    if few.source is None:
        return flops_per_token(model, seq_len)  # the model refuses such data when it is given them
    if (first := int(few.tokens[0, 0])) != model.start_id:
        mend = f"the model's decoder starts from {model.start_id}: let both be the same"
        raise ConfigError("data.start_id", first, mend)
    return model.forward_flops(few.source.shape[1], few.tokens.shape[1]) * len(few.tokens) / few.n_tokens
