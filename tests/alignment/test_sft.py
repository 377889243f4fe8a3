"""Masked SFT loss and its gradients against transformers' own loss with labels of -100."""

from __future__ import annotations

import pytest
import torch

from llm.alignment.sft import SFT
from llm.types import IGNORE
from tests.alignment.conftest import VOCAB_SIZE, preference_batch, whole_ids
from tests.evaluation.conftest import Wrapped


def test_loss_and_gradients_equal_transformers() -> None:
    model, batch = Wrapped(VOCAB_SIZE, 32), preference_batch()
    assert batch.targets is not None
    ids = whole_ids(batch)
    labels = torch.full_like(ids, IGNORE)
    labels[:, 1:] = batch.targets
    expected = model.llama(input_ids=ids, labels=labels).loss
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    algorithm = SFT()
    algorithm.setup(model)
    loss, _ = algorithm.loss(model, algorithm.collect(model, batch))
    loss.backward()
    assert algorithm.units(batch) == int((labels != IGNORE).sum())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-6, rtol=1e-5)


def test_what_is_ignored_does_not_count() -> None:
    model, batch = Wrapped(VOCAB_SIZE, 32), preference_batch()
    assert batch.targets is not None
    logits = model(batch).log_softmax(-1)
    picked = [
        -logits[row, place, target]
        for row, targets in enumerate(batch.targets.tolist())
        for place, target in enumerate(targets)
        if target != IGNORE
    ]
    loss, _ = SFT().loss(model, batch)
    assert loss.item() == pytest.approx(torch.stack(picked).mean().item(), abs=1e-6)
