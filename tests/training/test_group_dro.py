"""Group DRO against the paper's algorithm in numpy, and what a step minimises."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.training.group_dro import GroupDRO, updated
from llm.types import IGNORE, Batch
from tests.training import tiny

NAMES = ["a", "b", "c"]


@given(
    excess=st.lists(st.floats(0, 50), min_size=2, max_size=6),
    step_size=st.floats(0.01, 5),
    smoothing=st.floats(0, 0.5),
    n=st.integers(1, 4),
)
def test_the_update_is_algorithm_1(excess: list[float], step_size: float, smoothing: float, n: int) -> None:
    weights = torch.full((len(excess),), 1 / len(excess), dtype=torch.float64)
    want = np.full(len(excess), 1 / len(excess))
    for _ in range(n):
        weights = updated(weights, torch.tensor(excess, dtype=torch.float64), step_size, smoothing)
        raised = want * np.exp(step_size * (np.array(excess) - max(excess)))  # normalised below
        want = (1 - smoothing) * raised / raised.sum() + smoothing / len(excess)
    assert weights.tolist() == pytest.approx(want.tolist(), rel=1e-9, abs=1e-300)


def test_the_update_worked_by_hand() -> None:
    # e ** ln 3 = 3: weights 1/2 and 1/2 become 3/4 and 1/4, and a tenth of the even share is mixed in
    weights = updated(torch.tensor([0.5, 0.5]), torch.tensor([np.log(3.0), 0.0]).float(), 1.0, 0.1)
    assert weights.tolist() == pytest.approx([0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05])


def batch() -> Batch:
    """Seven rows of three domains, with targets hidden unequally."""
    rows = tiny.Counting(7, seed=4, mask=0.9).batch(range(7))
    return Batch(rows.tokens, rows.targets, domains=torch.tensor([0, 1, 1, 2, 0, 2, 2]))


def token_losses(model: torch.nn.Module, rows: Batch) -> np.ndarray:
    """Cross entropies of all places in float64, 0 where there is no target."""
    assert rows.targets is not None
    with torch.no_grad():
        logits = model(rows).double().numpy()
    logits = logits - logits.max(-1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = rows.targets.numpy()
    picked = np.take_along_axis(log_probs, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return np.where(targets == IGNORE, 0.0, -picked)


@pytest.mark.parametrize("clip", ["token", "domain"])
def test_a_step_against_numpy(clip: str) -> None:
    policy, reference = tiny.model(seed=1).train(), tiny.model(seed=2)
    algorithm = GroupDRO(NAMES, reference, step_size=2.0, smoothing=0.01, clip=clip)  # type: ignore[arg-type]
    algorithm.setup(policy)
    rows = batch()
    assert rows.targets is not None
    assert rows.domains is not None
    mine, theirs = token_losses(policy, rows), token_losses(reference, rows)
    counts = (rows.targets.numpy() != IGNORE).sum(-1)
    domains = rows.domains.numpy()
    weights, excess, losses = np.full(3, 1 / 3), np.zeros(3), np.zeros(3)
    for k in range(3):
        n = counts[domains == k].sum()
        above = (mine - theirs)[domains == k]
        excess[k] = np.maximum(above, 0).sum() / n if clip == "token" else max(above.sum() / n, 0)
        losses[k] = mine[domains == k].sum() / n
    history = []
    for _ in range(3):  # the same batch again: the weights go on
        raised = weights * np.exp(2.0 * excess)
        weights = 0.99 * raised / raised.sum() + 0.01 / 3
        history.append(weights)
        loss, metrics = algorithm.loss(policy, rows)
        assert loss.item() == pytest.approx((weights * losses).sum(), rel=1e-5)
        for k, name in enumerate(NAMES):
            assert metrics[f"weight/{name}"].item() == pytest.approx(weights[k], rel=1e-5)
            assert metrics[f"excess/{name}"].item() == pytest.approx(excess[k], rel=1e-4, abs=1e-6)
            assert not metrics[f"weight/{name}"].requires_grad
    assert list(algorithm.average.values()) == pytest.approx(np.mean(history, 0).tolist(), rel=1e-5)
    assert len(set(algorithm.average.values())) == 3


def test_the_gradient_is_that_of_the_weighted_losses_and_the_reference_has_none() -> None:
    policy, reference = tiny.model(seed=1).train(), tiny.model(seed=2)
    algorithm, rows = GroupDRO(NAMES, reference), batch()
    algorithm.setup(policy)
    algorithm.loss(policy, rows)[0].backward()
    assert rows.domains is not None
    assert rows.targets is not None
    again = copy.deepcopy(policy)
    again.zero_grad()
    for k, weight in enumerate(algorithm.weights.tolist()):
        part = rows.domains == k
        logits = again(Batch(rows.tokens[part])).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, rows.targets[part].flatten(), ignore_index=IGNORE)
        (weight * loss).backward()
    for (name, found), want in zip(policy.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, want.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert not reference.training


def test_validation_is_the_plain_mean_and_moves_no_weight() -> None:
    policy = tiny.model(seed=1).eval()
    algorithm, rows = GroupDRO(NAMES, tiny.model(seed=2)), batch()
    algorithm.setup(policy)
    loss, metrics = algorithm.loss(policy, rows)
    assert loss.item() == pytest.approx(token_losses(policy, rows).sum() / algorithm.units(rows), rel=1e-5)
    assert metrics == {}
    assert algorithm.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_a_domain_that_a_batch_lacks_keeps_its_excess() -> None:
    policy = tiny.model(seed=1).train()
    algorithm, rows = GroupDRO(NAMES, tiny.model(seed=2)), batch()
    algorithm.setup(policy)
    _, first = algorithm.loss(policy, rows)
    few = Batch(rows.tokens[:3], rows.targets[:3], domains=torch.tensor([0, 1, 1]))  # type: ignore[index]
    loss, second = algorithm.loss(policy, few)
    assert second["excess/c"] == first["excess/c"]
    assert torch.isfinite(loss)
