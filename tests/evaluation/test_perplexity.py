from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llm.evaluation.perplexity import ValidationLoss
from llm.evaluation.runner import sit, size
from llm.evaluation.scorer import Scorer
from llm.types import IGNORE, Batch, ConfigError, Splits
from tests.evaluation.conftest import Wrapped


class Sequences:
    bytes_per_target: float | None = 1.5

    def __init__(self, n: int, seq_len: int, vocab_size: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.ids = torch.randint(0, vocab_size, (n, seq_len + 1), generator=generator)
        self.targets = self.ids[:, 1:].clone()
        self.targets[0, :3] = IGNORE
        self.targets[-1] = IGNORE

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int]) -> Batch:
        where = torch.tensor(list(indices))
        return Batch(tokens=self.ids[where, :-1], targets=self.targets[where])


class Data:
    seq_len = 12

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.loads = dataset, 0

    def load(self, make_tokenizer: Any, cache: Any) -> Splits:
        self.loads += 1
        return Splits(self.dataset, self.dataset, make_tokenizer([]))

    def fingerprint(self) -> str:
        return "abc"


def test_loss_equals_cross_entropy(model: Wrapped, tokenizer: Any) -> None:
    dataset = Sequences(7, 12, tokenizer.vocab_size)
    data = Data(dataset)
    exam, scorer, done = ValidationLoss(data, batch_size=3), Scorer(model, tokenizer), []
    assert size(exam, scorer) == 7
    result = sit(exam, scorer, done.append)
    whole = dataset.batch(range(7))
    with torch.no_grad():
        logits = model.llama(whole.tokens).logits.double()
    expected = F.cross_entropy(logits.flatten(0, 1), whole.targets.flatten(), ignore_index=IGNORE).item()
    assert result.metrics["loss"] == pytest.approx(expected, abs=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(expected), rel=1e-4)
    assert result.metrics["bits_per_byte"] == pytest.approx(expected / math.log(2) / 1.5, abs=1e-5)
    assert result.metrics["n_tokens"] == 6 * 12 - 3
    assert sum(done) == 7
    assert len(result.rows) == 6, "a sequence without targets has no loss"
    assert data.loads == 1
    assert exam.fingerprint() == "abc"


def test_max_batches(model: Wrapped, tokenizer: Any) -> None:
    exam = ValidationLoss(Data(Sequences(7, 12, tokenizer.vocab_size)), batch_size=2, max_batches=2)
    scorer = Scorer(model, tokenizer)
    assert size(exam, scorer) == 4
    assert len(sit(exam, scorer).rows) == 4


def test_without_bytes(model: Wrapped, tokenizer: Any) -> None:
    dataset = Sequences(3, 12, tokenizer.vocab_size)
    dataset.bytes_per_target = None
    assert "bits_per_byte" not in sit(ValidationLoss(Data(dataset)), Scorer(model, tokenizer)).metrics


def test_mistakes(model: Wrapped, tokenizer: Any) -> None:
    scorer = Scorer(model, tokenizer)
    for data, key in (
        (None, "data"),
        (Data(Sequences(1, 12, 50)), "data"),  # its only sequence has no targets
        (Data(Sequences(3, 65, 50)), "data.seq_len"),
    ):
        with pytest.raises(ConfigError) as error:
            sit(ValidationLoss(data), scorer)
        assert error.value.key == key

    class Other:
        vocab_size = 7

    data = Data(Sequences(3, 12, 50))
    data.load = lambda make, cache: Splits(data.dataset, data.dataset, Other())  # type: ignore[method-assign, assignment, arg-type]
    with pytest.raises(ConfigError, match="another vocabulary"):
        sit(ValidationLoss(data), scorer)
