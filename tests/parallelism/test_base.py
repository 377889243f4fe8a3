"""One process: the step itself, and what every way of splitting must equal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llm.data.loader import Loader
from llm.parallelism.base import Engine
from llm.parallelism.precision import Precision
from llm.parallelism.single import Single
from llm.types import IGNORE, ConfigError
from tests.parallelism import worker
from tests.training import tiny


def test_a_step_is_plain_torch() -> None:
    engine = worker.prepare(Single())
    plain = copy.deepcopy(engine.model)
    optimizer = worker.OPTIMIZER(plain.named_parameters())
    loader = Loader(tiny.Counting(48, seed=1, mask=0.97), 8, seed=3)
    for step, metrics in enumerate(worker.train(engine, 0, 5, n_micro=4)):
        batch = loader.batch(step)
        assert batch.targets is not None
        loss = F.cross_entropy(plain(batch).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * tiny.schedule(step, 40)
        optimizer.step()
        optimizer.zero_grad()
        assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm.item(), abs=1e-4)
        assert metrics["lr"] == 1e-2 * tiny.schedule(step, 40)
        assert metrics["tokens"] == 8 * tiny.SEQ_LEN


def test_accumulation_gives_the_same_curve() -> None:
    whole = worker.train(worker.prepare(Single()), 0, 20, n_micro=1)
    parts = worker.train(worker.prepare(Single()), 0, 20, n_micro=8)
    assert [m["loss"] for m in parts] == pytest.approx([m["loss"] for m in whole], abs=1e-4)


def test_evaluation_weighs_by_targets_and_leaves_no_trace() -> None:
    engine = worker.prepare(Single(), dropout=0.5)
    engine.model.train()
    before = {name: tensor.clone() for name, tensor in engine.state()["model"].items()}
    rows = tiny.Counting(21, seed=2, mask=0.9).batch(range(21))
    seen: list[int] = []
    split = engine.measure(worker.validation(), seen.append)["loss"]
    assert split == pytest.approx(engine.evaluate([rows]), abs=1e-5)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert engine.model.training
    for name, tensor in engine.state()["model"].items():
        assert torch.equal(tensor, before[name])


def test_state_continues_a_run_bit_by_bit() -> None:
    first = worker.prepare(Single())
    worker.train(first, 0, 5)
    state = copy.deepcopy(first.state())
    assert set(state["model"]) == {name for name, _ in first.model.named_parameters()}
    assert "embedding.weight:exp_avg" in state["optimizer"]
    second = worker.prepare(Single(), seed=9)
    second.load_state(state)
    assert worker.train(second, 5, 10) == worker.train(first, 5, 10)
    fresh = worker.prepare(Single(), seed=9)
    fresh.load_state({"model": state["model"], "optimizer": {}})
    assert worker.train(fresh, 5, 10) != worker.train(second, 5, 10)


def test_bfloat16_stays_near_and_keeps_float32_weights() -> None:
    engine = worker.prepare(Single(), dtype="bfloat16")
    mixed, exact = worker.train(engine, 0, 5), worker.train(worker.prepare(Single()), 0, 5)
    assert [m["loss"] for m in mixed] == pytest.approx([m["loss"] for m in exact], abs=0.05)
    assert [m["loss"] for m in mixed] != [m["loss"] for m in exact]
    assert all(tensor.dtype == torch.float32 for tensor in engine.state()["model"].values())


def test_no_clipping_when_not_asked() -> None:
    engine = worker.prepare(Single())
    engine.clip_norm = None
    clipped, free = worker.train(worker.prepare(Single()), 0, 2), worker.train(engine, 0, 2)
    assert free[0] == clipped[0]
    assert free[0]["grad_norm"] > 0.5
    assert free[1]["loss"] != clipped[1]["loss"]


def test_algorithm_metrics_are_means_over_units() -> None:
    model = tiny.model()
    batches = [tiny.Counting(4).batch(range(3)), tiny.Counting(4).batch(range(3, 4))]

    def loss(policy: Any, batch: Any) -> Any:
        return policy(batch).mean(), {"first": batch.tokens.float().mean()}

    engine: Engine = Single().prepare(
        model,
        worker.OPTIMIZER,
        None,
        loss=loss,
        precision=Precision(),
        clip_norm=None,
        units=lambda batch: len(batch.tokens),
    )
    every = torch.cat([b.tokens for b in batches]).float().mean().item()
    assert engine.step(batches, 1.0)["first"] == pytest.approx(every)
    assert engine.measure(batches)["first"] == pytest.approx(every)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "fairscale_oss"])
def test_one_process_is_not_enough(name: str) -> None:
    with pytest.raises(ConfigError, match="torchrun") as mistake:
        worker.prepare(worker.KINDS[name]())
    assert (mistake.value.key, mistake.value.value) == ("parallelism", name)
