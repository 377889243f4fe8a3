from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llm.benchmarks.training import TrainingStep
from llm.config import build, compose
from llm.runs.run import Run
from llm.types import ConfigError

SMALL = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_ff": 64, "vocab_size": 50}


def small(model: str = "llama") -> TrainingStep:
    overrides = ["task=benchmark", "benchmark=training", f"model@benchmark.model={model}"]
    sizes = [f"benchmark.{key}={value}" for key, value in SMALL.items()]
    counts = ["benchmark.seq_len=8", "benchmark.batch_size=2", "benchmark.n_rounds=2", "benchmark.n_steps=1"]
    benchmark: TrainingStep = build(compose([*overrides, *sizes, *counts]).benchmark)
    return benchmark


def test_both_sides_are_timed_on_the_same_shape(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    metrics = small().measure(Run(tmp_path / "run"))
    assert next(iter(metrics)) == "ratio"
    assert metrics["ratio_low"] <= metrics["ratio"] <= metrics["ratio_high"]
    assert metrics["tokens_per_second"] > 0
    assert metrics["n_params"] == 2 * 50 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 3 * 32
    assert (tmp_path / "run" / "tables" / "timings.json").is_file()


def test_another_shape_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="where LLaMA has") as error:
        small("decoder").measure(Run(tmp_path / "run"))  # ties its embeddings
    assert error.value.key == "model"


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="hf"):
        small().measure(Run(tmp_path / "run"))


def test_steps_lower_the_loss() -> None:
    """What is timed is training: the weights move, and the loss on the batch falls."""
    import torch

    from llm.types import Batch
    from tests.evaluation.conftest import compose_decoder

    benchmark: Any = small()
    model = compose_decoder(50, 8)
    ids = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def loss() -> float:
        logits = model(Batch(ids[:, :-1]))
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    before = loss()
    steps = benchmark._stepper(model, lambda tokens: model(Batch(tokens)), ids)
    for _ in range(20):
        steps()
    assert loss() < before
