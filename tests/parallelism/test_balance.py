"""Mixtures of experts in training: their losses join every algorithm's, and no evaluation's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.alignment.dpo import DPO
from llm.data.loader import Loader
from llm.models.balancing import max_over_mean, noting, taken
from llm.parallelism.base import Engine
from llm.parallelism.single import Single
from llm.training.losses import NextToken
from tests.conftest import Main
from tests.models.composition import small
from tests.parallelism import worker
from tests.training import tiny


def engine(preset: str = "mixtral", algorithm: Any = None, **arguments: Any) -> Engine:
    return worker.prepare(Single(), model=worker.mixture(preset, **arguments), algorithm=algorithm)


def mixtures(model: torch.nn.Module) -> list[Any]:
    return [block.feed_forward for block in model.blocks if block.feed_forward.routes]


def test_a_step_lowers_the_sum_and_reports_the_parts() -> None:
    trained = engine(balance_loss=0.5, z_loss=0.1)
    plain = copy.deepcopy(trained.model)
    optimizer = worker.OPTIMIZER(plain.named_parameters())
    batches = [Loader(tiny.Counting(48, seed=1, mask=0.97), 8, seed=3).batch(0, m, 2) for m in range(2)]
    metrics = trained.step(batches, 1.0)

    units = [NextToken().units(batch) for batch in batches]
    assert units[0] != units[1]
    expected = {"loss": 0.0, "balance_loss": 0.0}
    for batch, n in zip(batches, units, strict=True):
        with noting(mixtures(plain)):
            loss, _ = NextToken().loss(plain, batch)
            found = taken(mixtures(plain))
        ((loss + found.loss) * n / sum(units)).backward()
        expected["loss"] += loss.item() * n / sum(units)
        expected["balance_loss"] += found.unevenness.item() * n / sum(units)
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    optimizer.step()
    for (name, ours), theirs in zip(trained.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=name)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-5)
    assert 1 <= metrics["expert_load_max_over_mean"] <= 4
    assert engine(balance_loss=0.0).step(batches, 1.0)["grad_norm"] != pytest.approx(metrics["grad_norm"])


def test_an_evaluation_is_the_algorithms_alone() -> None:
    measured = engine(balance_loss=5.0).measure(worker.validation())
    assert measured == engine(balance_loss=0.0).measure(worker.validation())
    assert set(measured) == {"loss"}


def test_models_without_experts_report_nothing_of_them() -> None:
    metrics = worker.train(worker.prepare(Single()), 0, 1)[0]
    assert set(metrics) == {"loss", "grad_norm", "lr", "tokens"}


def test_every_algorithm_gets_it() -> None:
    algorithm = DPO()
    trained = engine(algorithm=algorithm)
    algorithm.setup(trained.model)
    batch = tiny.Counting(8, seed=2).batch(range(8))
    assert {"balance_loss", "reward_margin"} <= set(trained.step([batch], 1.0))
    algorithm.setup(trained.model)  # a copy of a model that has been trained
    assert all(part.noted is None for part in mixtures(trained.model))


def test_the_bias_moves_once_a_step_by_all_micro_batches() -> None:
    trained = engine("deepseek_v3", bias_speed=0.01)
    part = mixtures(trained.model)[0]
    seen: list[Any] = []
    part.rebalance = seen.append
    worker.train(trained, 0, 1, n_micro=4)
    assert len(seen) == 1
    assert seen[0].sum() == 8 * tiny.SEQ_LEN * part.n_active


def test_a_resumed_run_has_the_same_bits() -> None:
    first = engine("deepseek_v3", bias_speed=0.01)
    worker.train(first, 0, 3)
    state = copy.deepcopy(first.state())
    moved = {name: t for name, t in state["model"].items() if name.endswith("selection_bias")}
    assert moved
    assert all(tensor.any() for tensor in moved.values())
    second = engine("deepseek_v3", bias_speed=0.01)
    second.load_state(state)
    assert worker.train(second, 3, 6) == worker.train(first, 3, 6)
    for name, tensor in first.state()["model"].items():
        assert torch.equal(second.state()["model"][name], tensor), name


@pytest.mark.parametrize(
    ("preset", "remedy"), [("mixtral", {"balance_loss": 0.1}), ("deepseek_v3", {"bias_speed": 0.02})]
)
def test_the_load_stays_balanced_and_would_not_by_itself(preset: str, remedy: dict[str, float]) -> None:
    def load(**arguments: float) -> float:
        """Of the last six of thirty steps; tokens have much in common, so routers begin with favourites."""
        trained = engine(preset, **{"balance_loss": 0.0, "bias_speed": 0.0} | arguments)
        with torch.no_grad():
            trained.model.embedding.weight += 0.04 * torch.randn(32, generator=torch.manual_seed(0))
        worker.train(trained, 0, 24, n_micro=1)
        total = 0
        for step in range(24, 30):
            worker.train(trained, step, step + 1, n_micro=1)
            total = total + torch.stack(trained.objective.counts)
        return max_over_mean(list(total)).item()

    balanced, left_alone = load(**remedy), load()
    assert balanced < 1.5 < 1.6 < left_alone, (balanced, left_alone)


def test_the_metrics_reach_the_record(main: Main, text: str) -> None:
    done = main(
        "task=pretrain", "model=mixtral", "data=text", text, "tokenizer=byte", "data.seq_len=16",
        "model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.d_ff=16", "trainer.max_steps=2",
        "trainer.batch_size=4", "trainer.eval_every_steps=2", "trainer.eval_batches=1",
        "schedule.warmup_steps=0", "tracker=none", "run_dir=result",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (Path(main.home) / "result/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert all(line["balance_loss"] > 0.9 for line in steps)
    assert all(line["expert_load_max_over_mean"] >= 1 for line in steps)
    assert not [key for line in lines for key in line if key.startswith("val_balance")]


def test_the_presets_say_how() -> None:
    assert {part.balance_loss for part in mixtures(small("mixtral"))} == {0.01}
    assert {(part.balance_loss, part.bias_speed) for part in mixtures(small("deepseek_v3"))} == {
        (0.0001, 0.001)
    }
