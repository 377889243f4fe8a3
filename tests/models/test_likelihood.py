"""Log-probabilities of targets against a softmax over all places in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llm.models.decoder import Decoder
from llm.models.evaluating import evaluating
from llm.models.likelihood import target_log_probs
from llm.models.weights import persistent
from llm.types import IGNORE, Batch
from tests.models.composition import ids, small


def _batch(share: float) -> Batch:
    tokens = ids(4, 10)
    kept = torch.rand(4, 9, generator=torch.Generator().manual_seed(1)) < share
    return Batch(tokens[:, :-1], torch.where(kept, tokens[:, 1:], IGNORE))


def _expected(model: Decoder, batch: Batch) -> Tensor:
    assert batch.targets is not None
    everywhere = model(batch).double().log_softmax(-1)
    chosen = everywhere.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    return chosen * (batch.targets != IGNORE)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("head_tokens", [None, 1, 7, 1000])
def test_each_target_has_its_log_probability(share: float, head_tokens: int | None) -> None:
    model, batch = small(), _batch(share)
    found = target_log_probs(model, batch, head_tokens=head_tokens)
    expected = _expected(model, batch)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    for mine, other in zip(_gradients(model, found), _gradients(model, expected), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)


def _gradients(model: Decoder, values: Tensor) -> tuple[Tensor, ...]:
    # Each place with a weight of its own, so that two that are mixed up do not pass.
    weights = torch.linspace(1, 2, values.numel()).view(values.shape).to(values.dtype)
    return torch.autograd.grad((values * weights).sum(), list(model.parameters()))


def test_the_head_sees_only_what_has_a_target_and_no_more_at_once_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch, seen = small(), _batch(0.4), []
    head = model.head
    monkeypatch.setattr(model, "head", lambda hidden: (seen.append(len(hidden)), head(hidden))[1])
    target_log_probs(model, batch, head_tokens=5)
    assert batch.targets is not None
    assert sum(seen) == int((batch.targets != IGNORE).sum())
    assert max(seen) == 5


def test_half_precision_is_summed_in_float32() -> None:
    model, batch = small().to(torch.bfloat16), _batch(1.0)
    assert target_log_probs(model, batch).dtype == torch.float32
    assert target_log_probs(model.double(), batch).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert target_log_probs(model.float(), batch).dtype == torch.float32


def test_evaluating_leaves_the_mode_as_it_was() -> None:
    model = small(dropout=0.5)
    for mode in (True, False):
        model.train(mode)
        with pytest.raises(ZeroDivisionError):
            _fail_while_evaluating(model)
        assert all(module.training is mode for module in model.modules())


def _fail_while_evaluating(model: Decoder) -> None:
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(_batch(1.0)).requires_grad
        raise ZeroDivisionError


def test_what_a_checkpoint_holds() -> None:
    """A tied matrix once, and no table that is computed."""
    tied, untied = small("decoder"), small("decoder", tie_embeddings=False)
    assert set(persistent(untied)) - set(persistent(tied)) == {"unembedding.weight"}
    assert set(persistent(tied)) == {name for name, _ in tied.named_parameters()}
    tied.register_buffer("counter", torch.zeros(1))
    assert set(persistent(tied)) - {name for name, _ in tied.named_parameters()} == {"counter"}
