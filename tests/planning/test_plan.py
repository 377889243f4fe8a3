"""Time, energy, what fits, and what would make it fit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from llm.config import build, compose
from llm.optimizers.adamw import adamw
from llm.parallelism.precision import Precision
from llm.planning.devices import Device
from llm.planning.plan import Plan, Training, make_plan, on_meta
from llm.planning.table import duration, size
from llm.training.losses import NextToken
from llm.types import ConfigError
from tests.models.composition import load_model

DEVICE = Device("a device", 1e12, 4e12, 8e6, 1e9, 100.0, "made up", on_gpu=False)
TRAINING = Training(
    seq_len=32, batch_size=16, grad_accum_steps=1, max_steps=50, n_devices=1, kind="single"
)  # fmt: skip


def planned(training: Training, device: Device = DEVICE, dtype: Any = "float32", **sizes: Any) -> Plan:
    model = load_model("llama", **{"d_model": 64, "n_layers": 4, "n_heads": 2, "n_kv_heads": 2, **sizes})
    whole = on_meta(model, vocab_size=100, max_seq_len=training.seq_len)
    return make_plan(whole, adamw, NextToken(), training, device, Precision(dtype=dtype), 0.5)


def test_time_and_energy_follow_from_the_work() -> None:
    plan = planned(TRAINING, replace(DEVICE, memory_bytes=1e12))
    matrices = plan.n_params - 100 * 64  # embeddings are looked up, not multiplied
    mixing = 4 * 4 * 32 * 64
    vectors = (2 * 4 + 1) * 64
    assert plan.flops_per_token == 3 * (2 * (matrices - vectors) + mixing)
    assert plan.flops == plan.flops_per_token * 50 * 16 * 32
    assert plan.seconds == pytest.approx(plan.flops / (1e12 * 0.5))
    assert plan.joules == pytest.approx(plan.seconds * 100)
    assert plan.fits
    assert plan.changes == []
    narrow = planned(TRAINING, replace(DEVICE, memory_bytes=1e12), dtype="bfloat16")
    assert narrow.seconds == pytest.approx(plan.seconds / 4)
    assert narrow.decode_tokens_per_second == pytest.approx(1e9 / (2 * plan.n_params))


def test_each_change_that_is_named_makes_it_fit() -> None:
    plan = planned(TRAINING)
    assert not plan.fits
    assert [change.partition("=")[0] for change in plan.changes] == [
        "trainer.grad_accum_steps", "parallelism", "trainer.batch_size",
    ]  # fmt: skip
    for change in plan.changes[:2]:
        given = dict(part.split("=") for part in change.split())
        kind: Any = given.get("parallelism", TRAINING.kind)
        mended = replace(
            TRAINING,
            grad_accum_steps=int(given.get("trainer.grad_accum_steps", 1)),
            n_devices=int(given.get("n_devices", 1)),
            batch_size=int(given.get("trainer.batch_size", 16)),
            kind=kind,
        )
        again = planned(mended)
        assert again.peak_bytes <= 1.05 * DEVICE.memory_bytes, change


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"n_devices": 2}, "n_devices"),
        ({"kind": "fsdp2"}, "n_devices"),
        ({"kind": "ddp", "n_devices": 3}, "batch_size"),
        ({"grad_accum_steps": 5}, "batch_size"),
    ],
)
def test_numbers_that_do_not_fit_together(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        replace(TRAINING, **changes)
    assert mistake.value.key == key


def test_a_model_of_eight_billion_is_planned_in_a_moment_and_without_memory() -> None:
    node = compose(["task=pretrain", "model=llama3_8b"]).model
    training = replace(TRAINING, seq_len=8192, batch_size=8, n_devices=8, kind="fsdp2")
    device = replace(DEVICE, memory_bytes=80e9, on_gpu=True)
    planned(TRAINING)  # torch loads parts of itself when they are first used
    start = time.process_time()
    model = on_meta(build(node), max_seq_len=8192)
    plan = make_plan(model, adamw, NextToken(), training, device, Precision(dtype="bfloat16"), 0.4)
    seconds = time.process_time() - start
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert plan.n_params == 8_030_261_248
    assert plan.memory.parameters == plan.n_params * 4 // 8
    assert plan.memory.optimizer == pytest.approx(2 * plan.memory.parameters, rel=1e-3)
    assert plan.cache.per_token == 32 * 2 * 8 * 128 * 2
    assert seconds < 6, "about one on an idle core; type checks of the tests and neighbours take theirs"


def test_a_gpu_keeps_less_of_attention_than_a_plain_formula() -> None:
    training = replace(TRAINING, seq_len=512, batch_size=1)
    device = replace(DEVICE, memory_bytes=1e12, on_gpu=True)
    plain = planned(training, device, n_kv_heads=1)  # no fused kernel there for grouped heads in float32
    fused = planned(training, device, n_kv_heads=2)
    scores = 2 * 512 * 512 * 4
    assert plain.memory.total - fused.memory.total > 3 * scores
    assert planned(training, device, "bfloat16", n_kv_heads=1).memory.total < fused.memory.total


def test_words() -> None:
    assert [size(n) for n in (5, 2048, 3.5 * 2**30)] == ["5 B", "2.00 KiB", "3.50 GiB"]
    assert [duration(s) for s in (4.21, 720, 7200, 3 * 86400)] == ["4.2 s", "12.0 min", "2.0 h", "3.0 days"]
