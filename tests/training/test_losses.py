"""Losses against transformers, and against plain arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llm.training.losses import NextToken, sequence_log_probs
from llm.types import IGNORE, Batch
from tests.training import tiny


@pytest.mark.parametrize("mask", [0.0, 0.9])
def test_next_token_is_the_loss_of_transformers(mask: float) -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    batch, model = tiny.Counting(6, mask=mask).batch(range(6)), tiny.model()
    logits = model(batch)
    assert batch.targets is not None
    expected = ForCausalLMLoss(logits, labels=None, vocab_size=tiny.VOCAB, shift_labels=batch.targets)
    loss, _ = NextToken().loss(model, batch)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_units_count_targets() -> None:
    batch = tiny.Counting(6, mask=0.9).batch(range(6))
    assert batch.targets is not None
    assert NextToken().units(batch) == sum(t != IGNORE for row in batch.targets.tolist() for t in row)


def test_a_batch_without_targets_weighs_nothing_and_breaks_nothing() -> None:
    batch, model = tiny.Counting(2).batch(range(2)), tiny.model()
    loss, _ = NextToken().loss(model, Batch(batch.tokens, torch.full_like(batch.tokens, IGNORE)))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("mask", [0.0, 0.9])
def test_sequence_log_probs(mask: float) -> None:
    batch, model = tiny.Counting(6, mask=mask).batch(range(6)), tiny.model()
    assert batch.targets is not None
    sums, counts = sequence_log_probs(model, batch)
    log_probs = F.log_softmax(model(batch).double(), -1)
    for row, targets in enumerate(batch.targets.tolist()):
        kept = [(place, token) for place, token in enumerate(targets) if token != IGNORE]
        expected = sum(log_probs[row, place, token].item() for place, token in kept)
        assert sums[row].item() == pytest.approx(expected, abs=1e-4)
        assert counts[row].item() == len(kept)


def test_sequence_log_probs_have_gradients() -> None:
    model = tiny.model()
    sums, _ = sequence_log_probs(model, tiny.Counting(4, mask=0.5).batch(range(4)))
    assert all(g.any() for g in torch.autograd.grad(sums.sum(), list(model.parameters())))
