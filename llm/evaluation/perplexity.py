"""Validation loss, perplexity and bits per byte over a whole data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from llm.data.loader import InOrder
from llm.evaluation.aggregation import compute
from llm.evaluation.base import Advance, Result
from llm.evaluation.scorer import Scorer
from llm.types import IGNORE, ConfigError, Dataset, TrainingData

N_PROMPTS = 2
PROMPT_TOKENS = 16


class ValidationLoss:
    """How well a model predicts the validation split of `data`: every target token, once.

    The loss is the mean over target tokens, so it equals the trainer's `val_loss` over the whole split.
    Bits per byte divide the same nats by the text's bytes instead of its tokens, and so compare models
    whose tokenizers differ (Gao et al. 2020, The Pile, section 3.1).

    Args:
        data: a `data` component; loaded with the checkpoint's own tokenizer. None until the task has found
            out what the model was trained on.
        batch_size: sequences of one forward pass.
        max_batches: stop after this many batches; null for the whole split.
    """

    main_metric = "loss"

    def __init__(
        self,
        data: TrainingData | None,
        batch_size: Annotated[int, Field(gt=0)] = 16,
        max_batches: Annotated[int, Field(gt=0)] | None = None,
        name: str = "validation_loss",
    ) -> None:
        self.data, self.batch_size, self.max_batches, self.name = data, batch_size, max_batches, name
        self._loaded: tuple[Scorer, Dataset] | None = None

    def size(self, scorer: Scorer) -> int:
        """Sequences that will be read."""
        n = len(self._validation(scorer))
        return n if self.max_batches is None else min(n, self.max_batches * self.batch_size)

    def measure(self, scorer: Scorer, advance: Advance) -> Result:
        """The loss over the validation split, a row for each sequence.

        Raises:
            ConfigError: the split is empty or its sequences do not fit into the model's context.
        """
        dataset = self._validation(scorer)
        log_likelihoods: list[float] = []
        counts: list[int] = []
        for batch in InOrder(dataset, self.batch_size, self.size(scorer)):
            assert batch.targets is not None
            if batch.tokens.shape[1] > scorer.max_seq_len:
                mend = f"the model's context is {scorer.max_seq_len}: use sequences that fit into it"
                raise ConfigError("data.seq_len", batch.tokens.shape[1], mend)
            log_likelihoods += scorer.log_probs(batch).tolist()
            counts += (batch.targets != IGNORE).sum(-1).tolist()
            advance(len(batch.tokens))
        if not sum(counts):
            raise ConfigError("data", type(self.data).__name__, "its validation split has nothing to predict")
        width = dataset.bytes_per_target
        metrics = compute(
            "token_likelihood",
            log_likelihoods,
            counts,
            n_bytes=None if width is None else width * sum(counts),
        )
        rows = [
            {"id": i, "loss": -total / count, "n_tokens": count}
            for i, (total, count) in enumerate(zip(log_likelihoods, counts, strict=True))
            if count
        ]
        return Result(metrics, self.main_metric, rows, list(_prompts(dataset, scorer)))

    def fingerprint(self) -> str:
        """The data's digest, part of a stage's key; without data, that they follow from the checkpoint."""
        return "what the model was trained on" if self.data is None else self.data.fingerprint()

    def _data(self) -> TrainingData:
        if self.data is None:
            raise ConfigError("data", None, "choose the data to measure on, as data=tinyshakespeare")
        return self.data

    def _validation(self, scorer: Scorer) -> Dataset:
        if self._loaded is None or self._loaded[0] is not scorer:
            # Tokens of the checkpoint's tokenizer: another one's ids would be noise to this model.
            splits = self._data().load(lambda _: scorer.tokenizer, scorer.cache)
            _check_tokenizer(splits.tokenizer.vocab_size, scorer)
            self._loaded = (scorer, splits.validation)
        return self._loaded[1]


def _check_tokenizer(vocab_size: int, scorer: Scorer) -> None:
    """Data that were tokenized beforehand carry their own tokenizer."""
    if vocab_size != scorer.tokenizer.vocab_size:
        mend = f"tokenized with another vocabulary than the checkpoint's ({scorer.tokenizer.vocab_size})"
        raise ConfigError("data", vocab_size, mend)


def _prompts(dataset: Dataset, scorer: Scorer) -> Iterator[str]:
    """The beginnings of a few sequences, spread over the split, for sample generations; or whole sources."""
    for index in np.unique(np.linspace(0, len(dataset) - 1, N_PROMPTS, dtype=int)):
        batch = dataset.batch([int(index)])
        read = batch.tokens[0, :PROMPT_TOKENS]
        if batch.source is not None:
            read = (
                batch.source[0] if batch.source_padding is None else batch.source[0][batch.source_padding[0]]
            )
        yield scorer.tokenizer.decode([token for token in read.tolist() if token != scorer.tokenizer.eos_id])
