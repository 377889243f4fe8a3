"""Two gloo processes against one: the same losses, and states that load in each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.parallelism.single import Single
from llm.runs.directory import read_metrics
from tests.parallelism import worker
from tests.training.test_trainer import fit

pytestmark = pytest.mark.distributed
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The one-process run, its state half-way on disk, and where the others write."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("distributed")
    found: dict[str, Any] = {"folder": folder}
    for tied in (True, False):
        engine = worker.prepare(Single(), tie_embeddings=tied)
        curves = {
            "untrained": engine.measure(worker.validation()),
            "curve": worker.train(engine, 0, worker.HALF),
        }
        if tied:
            worker.write(engine.state(), folder / "half")
        curves["curve"] += worker.train(engine, worker.HALF, worker.STEPS)
        curves |= {"after": engine.measure(worker.validation()), "sample": engine.run(worker.sample)}
        curves["next"] = worker.train(engine, worker.STEPS, worker.STEPS + 5)
        found[tied] = curves
    found["held_bytes"] = worker.held_bytes(engine)
    found["adapted"] = worker.adapted(Single())
    return found


@pytest.fixture(scope="module")
def found(single: dict[str, Any]) -> dict[str, Any]:
    """What two processes found, see `worker.work`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "tests.parallelism.worker", str(single["folder"])]
    processes = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **both, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    result: dict[str, Any] = json.loads((single["folder"] / "found.json").read_text())
    return result


def of(curve: list[dict[str, float]], name: str) -> list[float]:
    return [metrics[name] for metrics in curve]


@pytest.mark.parametrize("kind", worker.KINDS)
def test_the_curve_of_one_process(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    alone, ours = single[kind != "ddp"], found[kind]
    assert of(ours["curve"], "loss") == pytest.approx(of(alone["curve"], "loss"), abs=1e-4)
    assert of(ours["curve"], "grad_norm") == pytest.approx(of(alone["curve"], "grad_norm"), abs=1e-3)
    assert of(ours["curve"], "tokens") == of(alone["curve"], "tokens")
    assert alone["curve"][0]["loss"] - alone["curve"][-1]["loss"] > 0.2
    for moment in ("untrained", "after"):
        assert ours[moment]["loss"] == pytest.approx(alone[moment]["loss"], abs=1e-4)
    assert ours["sample"] == pytest.approx(alone["sample"], abs=1e-3)


@pytest.mark.parametrize("kind", worker.KINDS)
def test_experts_are_balanced_over_all_processes(kind: str, found: dict[str, Any]) -> None:
    """Two processes of two micro-batches have the four of one process."""
    alone, ours = worker.with_experts(Single(), 4), found[kind]["experts"]
    for name in ("loss", "grad_norm", "balance_loss", "expert_load_max_over_mean"):
        assert of(ours["curve"], name) == pytest.approx(of(alone["curve"], name), abs=1e-3), name
    assert ours["bias"] == [pytest.approx(bias, abs=1e-6) for bias in alone["bias"]]
    assert any(any(bias) for bias in alone["bias"])


@pytest.mark.parametrize("kind", worker.KINDS)
def test_it_goes_on_from_a_state_of_one_process(
    kind: str, single: dict[str, Any], found: dict[str, Any]
) -> None:
    expected = of(single[True]["curve"][worker.HALF :], "loss")
    assert of(found[kind]["resumed"], "loss") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", worker.KINDS)
def test_one_process_goes_on_from_its_state(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    assert found[kind]
    engine = worker.prepare(Single(), seed=7, tie_embeddings=kind != "ddp")
    engine.load_state(worker.read(single["folder"] / kind))
    curve = worker.train(engine, worker.STEPS, worker.STEPS + 5)
    assert of(curve, "loss") == pytest.approx(of(single[kind != "ddp"]["next"], "loss"), abs=1e-4)


@pytest.mark.parametrize("kind", worker.KINDS)
def test_the_models_learning_rates_are_kept(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    expected = of(worker.train(worker.prepare(Single(), **worker.WIDENED), 0, 5), "loss")
    assert of(found[kind]["widened"], "loss") == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(of(single[True]["curve"], "loss")[:5], abs=1e-2)


@pytest.mark.parametrize("kind", worker.KINDS)
def test_bfloat16_stays_near(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    losses = of(found[kind]["mixed"], "loss")
    exact = of(single[True]["curve"], "loss")[: len(losses)]
    assert losses == pytest.approx(exact, abs=0.05)
    assert losses != pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("kind", worker.KINDS)
def test_few_weights_beside_frozen_ones(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    """The first process's adapter and base win, in four bits too; the rest stays as it was."""
    for name, alone in single["adapted"].items():
        ours = found[kind]["adapted"][name]
        assert ours["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        assert ours["sums"] == pytest.approx(alone["sums"], abs=2e-2)
        assert alone["losses"][-1] < alone["losses"][0] - 0.02
        assert 0 < ours["held_bytes"] <= alone["held_bytes"]


@pytest.mark.parametrize("kind", ["fsdp2", "fairscale_oss"])
def test_the_optimizers_state_is_shared_out(kind: str, single: dict[str, Any], found: dict[str, Any]) -> None:
    assert found[kind]["held_bytes"] < 0.6 * found["ddp"]["held_bytes"]
    assert found["ddp"]["held_bytes"] == single["held_bytes"]


@pytest.mark.parametrize("kind", worker.KINDS)
def test_the_trainer_over_two_processes(
    kind: str, single: dict[str, Any], found: dict[str, Any], tmp_path: Path
) -> None:
    alone = worker.train_whole(tmp_path, Single())
    assert found["fit"][kind] == pytest.approx(alone, abs=1e-4)
    directory = single["folder"] / f"fit_{kind}"
    assert [line["step"] for line in read_metrics(directory / "metrics.jsonl")] == list(range(5))
    resumed = fit(directory, max_steps=6, resume_from=directory, model=worker.NO_DROPOUT)
    straight = fit(tmp_path, max_steps=6, resume_from=tmp_path, model=worker.NO_DROPOUT)
    assert resumed.val_loss == pytest.approx(straight.val_loss, abs=1e-4)


def test_a_signal_to_one_process_stops_all_at_the_same_step(found: dict[str, Any]) -> None:
    assert found["interrupted"] == "step_000003"


def test_a_batch_that_the_processes_cannot_share(found: dict[str, Any]) -> None:
    assert found["mistakes"]["batch"] == [
        "batch_size",
        "batch_size=6: is not divisible by 2 processes x grad_accum_steps=2; nearest: 4, 8",
    ]


@pytest.mark.parametrize(
    ("kind", "key"),
    [("single", "parallelism"), ("ddp", "replicas"), ("fsdp2", "shards"), ("fairscale_oss", "replicas")],
)
def test_a_wrong_number_of_processes_is_the_users_mistake(kind: str, key: str, found: dict[str, Any]) -> None:
    where, line = found["mistakes"][kind]
    assert where == key
    assert "torchrun" in line
