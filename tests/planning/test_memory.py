"""Planned memory against what torch's allocator gave out in a real step of the same config."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch

from llm.optimizers.adamw import adamw
from llm.parallelism.precision import Precision
from llm.planning.memory import KINDS, Kind, Memory, per_device
from llm.planning.plan import on_meta
from llm.planning.rehearsal import Load, Step, materialised, rehearse, shortened, updated
from llm.planning.trace import Trace
from llm.training.losses import NextToken
from tests.conftest import REPOSITORY
from tests.models.composition import load_model
from tests.planning import worker
from tests.planning.measured import step_peak


def momentum(named_parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for _, p in named_parameters], lr=0.1, momentum=0.9)


OPTIMIZERS: dict[str, Any] = {"adamw": adamw, "momentum": momentum}
FAMILIES = ("gpt2", "llama", "gemma2", "olmo2", "mixtral", "deepseek_v3", "gpt_neox", "qwen3")


def rehearsed(
    preset: str, load: Load, *, dtype: Any, optimizer: Any = adamw, vocab_size: int = 211,
    parameter_dtype: Any = None, on_gpu: bool = False, **sizes: Any,
) -> tuple[torch.nn.Module, Step]:  # fmt: skip
    model = on_meta(load_model(preset, **sizes), vocab_size=vocab_size, max_seq_len=load.seq_len)
    step = rehearse(
        model, optimizer, NextToken(), load, precision=Precision(dtype=dtype), clip_norm=1.0, on_gpu=on_gpu,
        parameter_dtype=parameter_dtype,
    )  # fmt: skip
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model, step


def planned(
    preset: str, load: Load, kind: Kind = "single", n: int = 1, dtype: Any = "float32", **o: Any
) -> Memory:
    pure = kind == "fsdp2" and dtype != "float32"
    narrow = torch.bfloat16 if pure else None
    model, step = rehearsed(
        preset, load, dtype="float32" if pure else dtype, parameter_dtype=narrow, **o
    )  # fmt: skip
    return per_device(model, step, kind, n, mixed=dtype != "float32")


def drawn(number: int) -> dict[str, Any]:
    """The config of this number: everything that decides memory, by a fixed seed."""
    draw = random.Random(f"plan {number}")
    heads = draw.choice([2, 4])
    preset = FAMILIES[(number * 3 + draw.randrange(2)) % len(FAMILIES)]
    return {
        "preset": preset,
        "sizes": {
            "d_model": heads * draw.choice([16, 32]),
            "n_layers": draw.randrange(1, 6),
            "n_heads": heads,
            "n_kv_heads": None,
        },
        "micro_batch": draw.randrange(1, 7),
        "seq_len": draw.choice([16, 48, 96]),
        "n_micro": draw.choice([1, 1, 3]),
        "vocab_size": draw.choice([101, 512, 2048]),
        "dtype": ("float32", "bfloat16")[number % 2],
        "optimizer": draw.choice(list(OPTIMIZERS)),
    }


@pytest.mark.parametrize("number", range(5))
def test_memory_is_what_a_real_step_takes(number: int) -> None:
    config = drawn(number)
    make_model = load_model(config["preset"], **config["sizes"])
    optimizer, shape = OPTIMIZERS[config["optimizer"]], (config["micro_batch"], config["seq_len"])

    def initialised(**arguments: Any) -> Any:
        model = make_model(**arguments)
        model.init_weights(torch.Generator().manual_seed(0))
        return model

    real = step_peak(
        initialised, optimizer, dtype=config["dtype"], vocab_size=config["vocab_size"],
        micro_batch=shape[0], seq_len=shape[1], n_micro=config["n_micro"],
    )  # fmt: skip
    memory = planned(
        config["preset"], Load(*shape, config["n_micro"]), dtype=config["dtype"], optimizer=optimizer,
        vocab_size=config["vocab_size"], **config["sizes"],
    )  # fmt: skip
    assert memory.total == pytest.approx(real, rel=0.02), config


def test_memory_of_an_encoder_and_a_decoder() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "head_dim": 16, "d_ff": 64, "n_layers": 3, "n_encoder_layers": 4}
    shape = {"micro_batch": 3, "seq_len": 24}
    make_model = load_model("t5", **sizes)
    real = step_peak(make_model, adamw, dtype="float32", vocab_size=211, has_source=True, **shape)
    memory = planned("t5", Load(**shape, source_len=24), **sizes)
    assert memory.total == pytest.approx(real, rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", ["gpt2", "llama"])
def test_memory_is_what_a_gpu_gives_out(preset: str, dtype: Any) -> None:
    sizes = {"d_model": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": None, "dropout": 0.0}
    make_model = load_model(preset, **sizes)

    def on_gpu(**arguments: Any) -> Any:
        model = make_model(**arguments).cuda()
        model.init_weights(torch.Generator().manual_seed(0))
        return model

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step_peak(on_gpu, adamw, dtype=dtype, vocab_size=4096, micro_batch=8, seq_len=256)
    real = torch.cuda.max_memory_allocated() - before
    memory = planned(preset, Load(8, 256), dtype=dtype, vocab_size=4096, on_gpu=True, **sizes)
    assert memory.total == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize(
    ("preset", "part", "changes", "n_kept"),
    [
        ("gemma2", "attention", {"window": 8}, 4),  # every other layer has a window
        (
            "deepseek_v3",
            "feed_forward",
            {"n_experts": 2, "n_active": 1, "n_groups": 1, "n_active_groups": 1},
            3,
        ),
    ],  # there the first layer has no experts
)
def test_a_shortened_rehearsal_is_the_whole_one(
    preset: str, part: str, changes: dict[str, Any], n_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, Any] = {
        "d_model": 32,
        "n_layers": 6 if preset == "gemma2" else 4,
        "n_heads": 2,
        "n_kv_heads": None,
    }
    sizes[part] = partial(load_model(preset).keywords[part], **changes)
    load = Load(2, 24)
    model, short = rehearsed(preset, load, dtype="bfloat16", optimizer=momentum, **sizes)
    assert len(shortened(model)[0].blocks) == n_kept  # type: ignore[arg-type]
    monkeypatch.setattr("llm.planning.rehearsal.shortened", lambda model: (model, []))
    _, whole = rehearsed(preset, load, dtype="bfloat16", optimizer=momentum, **sizes)
    assert len(whole.shortened.blocks) == sizes["n_layers"]  # type: ignore[arg-type]
    assert short.state == whole.state
    assert (short.evaluation, short.update) == (whole.evaluation, whole.update)
    for kind in KINDS[:2]:
        assert per_device(model, short, kind, 4, mixed=True) == per_device(model, whole, kind, 4, mixed=True)
    assert total(short) == total(whole)


def total(step: Step) -> int:
    """What the passes leave; blocks that are released twice, or never, would show here."""
    return sum(size for s in step.segments if s.phase != "update" for _, size in s.events)


def test_an_optimizer_that_works_on_all_at_once_is_told_from_one_that_does_not() -> None:
    def foreach(named_parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for _, p in named_parameters], foreach=True)

    found = []
    for optimizer in (adamw, foreach):
        for n_layers in (3, 6):
            sizes = {"d_model": 32, "n_heads": 2, "n_kv_heads": None, "n_layers": n_layers}
            model = on_meta(load_model("llama", **sizes), vocab_size=11, max_seq_len=8)
            found.append(updated(model, *shortened(model), optimizer)[1])
    assert found[0] == found[1] == 0  # fused
    assert found[3] > 1.5 * found[2] > 0


def test_every_parallelism_against_torchs_own() -> None:
    command = [sys.executable, "-m", "tests.planning.worker"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    real = json.loads(done.stdout.splitlines()[-1])
    assert len(real) == len(worker.CASES)
    for case, bytes_ in zip(worker.CASES, real, strict=True):
        kind, dtype, n_micro, seq_len = case
        memory = planned(
            worker.PRESET, Load(worker.MICRO_BATCH, seq_len, n_micro), kind, worker.WORLD, dtype,
            vocab_size=worker.VOCAB, **worker.SIZES,
        )  # fmt: skip
        assert memory.total == pytest.approx(bytes_, rel=0.1), case


def test_a_trace_hears_of_what_is_made_and_what_goes() -> None:
    with Trace() as trace:
        first = torch.zeros(1000)
        view = first[:10]
        second = first + view.sum()
        del first
        assert sum(trace.live().values()) == 8000  # the view keeps the storage
        del view
        assert sum(trace.live().values()) == 4000
        second.add_(1)
        assert sum(trace.live().values()) == 4000
    assert [size for _, _, size in trace.events if abs(size) >= 4000] == [4000, 4000, -4000]


def test_tied_parameters_stay_tied() -> None:
    model = on_meta(load_model("gpt2", d_model=8, n_heads=2, n_layers=1), vocab_size=5, max_seq_len=4)
    with Trace():
        made = materialised(shortened(model)[0], torch.bfloat16)
        assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
