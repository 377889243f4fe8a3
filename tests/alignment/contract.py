"""What every algorithm under conf/alignment promises; a new file is found unaided."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from llm.checking import check
from llm.config import build
from llm.types import Algorithm, Batch
from tests.alignment.conftest import VOCAB_SIZE, preference_batch
from tests.evaluation.conftest import Wrapped


def check_algorithm(path: Path) -> None:
    """Raises when the algorithm that `path` configures breaks the protocol."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what it is, for --help"
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    check(config)
    _check_shapes_and_gradients(config)
    _check_mean_over_units(config)
    _check_it_learns(config)


def _started(config: DictConfig) -> tuple[Algorithm, Wrapped]:
    algorithm: Algorithm = build(config)
    initial = Wrapped(VOCAB_SIZE, 32)
    algorithm.setup(initial)
    policy = copy.deepcopy(initial)
    with torch.no_grad():
        for parameter in policy.parameters():  # away from the start, where a DPO-like loss is flat
            parameter.mul_(1.05)
    return algorithm, policy


def _check_shapes_and_gradients(config: DictConfig) -> None:
    algorithm, policy = _started(config)
    assert isinstance(algorithm.epochs_per_collect, int)
    assert algorithm.epochs_per_collect >= 1
    batch = algorithm.collect(policy, preference_batch())
    assert isinstance(batch, Batch)
    units = algorithm.units(batch)
    assert isinstance(units, int)
    assert units > 0
    loss, metrics = algorithm.loss(policy, batch)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    for name, value in metrics.items():
        assert value.shape == (), f"{name} is one number"
        assert torch.isfinite(value), name
        assert not value.requires_grad, f"{name} holds on to the graph"
    loss.backward()
    gradients = [parameter.grad for parameter in policy.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    again, _ = algorithm.loss(policy, batch)
    assert again.item() == loss.item(), "the loss depends on something else than policy and batch"


def _check_mean_over_units(config: DictConfig) -> None:
    """Micro-batches weighted by their units give the whole batch's loss: accumulation is exact."""
    algorithm, policy = _started(config)
    batch = algorithm.collect(policy, preference_batch(n_pairs=4))
    assert batch.targets is not None
    parts = []
    for pairs in ([0], [1, 2, 3]):  # of different sizes, so that a plain mean would show
        rows = [*pairs, *(pair + 4 for pair in pairs)]
        parts.append(Batch(tokens=batch.tokens[rows], targets=batch.targets[rows]))
    units = [algorithm.units(part) for part in parts]
    assert sum(units) == algorithm.units(batch)
    with torch.no_grad():
        weighted = sum(
            n * algorithm.loss(policy, part)[0].item() for n, part in zip(units, parts, strict=True)
        )
        whole = algorithm.loss(policy, batch)[0].item()
    assert math.isclose(weighted / sum(units), whole, abs_tol=1e-5), "the loss is not a mean over its units"


def _check_it_learns(config: DictConfig) -> None:
    algorithm, policy = _started(config)
    batch = algorithm.collect(policy, preference_batch())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss, _ = algorithm.loss(policy, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], f"the loss does not fall on a batch it is trained on: {losses}"
