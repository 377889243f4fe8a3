"""task=doremi: weight goes to what is rare and can be learned, and the file is read by those who mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.learned_weights import LearnedMixture
from llm.data.mixture import MixedData
from llm.data.packed import PackedData
from llm.data.packing import PackedWriter
from llm.runs.directory import read
from llm.runs.run import Run
from llm.tasks.doremi import doremi
from llm.tokenizers import byte
from llm.training.trainer import Trainer
from llm.types import ConfigError, TrainingData
from tests.conftest import Main

SEQ_LEN, BYTES = 16, byte.train([])
SEQUENCES = {"noise": 450, "easy": 450, "rare": 100}


def rows(domain: str, n: int) -> np.ndarray:
    """Bytes at random; one byte for ever; a walk around 32 bytes in an order that must be learned."""
    if domain == "noise":
        return np.random.default_rng(0).integers(0, 256, n)
    if domain == "easy":
        return np.full(n, 20)
    follows = np.roll(order := np.random.default_rng(5).permutation(32), 1)[np.argsort(order)]
    walk, jumps = [0], np.random.default_rng(1)
    while len(walk) < n:
        walk.append(follows[walk[-1]] if jumps.random() > 0.03 else jumps.integers(32))
    return np.array(walk) + 32


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doremi")
    for domain, n in SEQUENCES.items():
        BYTES.save(folder / domain / "tokenizer")
        for split, part in (("train", n), ("validation", 10)):
            with PackedWriter(folder / domain / split, BYTES.vocab_size) as writer:
                writer.write(rows(domain, part * SEQ_LEN), n_bytes=part * SEQ_LEN, n_documents=1)
    return folder


SMALL = [
    "task=doremi", "tracker=none", "data.paths={noise: noise, easy: easy, rare: rare}",
    f"data.seq_len={SEQ_LEN}", "model.d_model=32", "model.n_layers=1", "model.n_heads=2", "optimizer.lr=5e-3",
    "schedule=constant", "trainer.max_steps=60", "trainer.batch_size=24", "trainer.eval_every_steps=60",
]  # fmt: skip


def test_weight_goes_to_what_is_rare_and_can_be_learned(home: Path) -> None:
    done = Main(home)(*SMALL, "run_dir=run")
    assert done.code == 0, done.err
    found = json.loads((home / "run" / "weights.json").read_text())
    weights, baseline = found["weights"], found["baseline"]
    assert baseline == pytest.approx({"noise": 0.45, "easy": 0.45, "rare": 0.1}, abs=0.01)
    assert found["sequences"] == SEQUENCES
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["rare"] > 0.45, "from a tenth to nearly half"
    assert max(weights["noise"], weights["easy"]) < 0.4

    record = read(home / "run")
    lines = [line for line in record.metrics if line["stage"] == "proxy" and "weight/rare" in line]
    assert [line["step"] for line in lines] == list(range(1, 61))
    for name in SEQUENCES:
        mean = np.mean([line[f"weight/{name}"] for line in lines])
        assert weights[name] == pytest.approx(mean, abs=1e-6)
        assert record.result["metrics"][f"weight/{name}"] == weights[name]
    assert (home / "run" / "weights.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"rare: 10.0% in the baseline, {weights['rare']:.1%} learned" in done.err

    # A curation reads the file.
    frame = pl.DataFrame({"domain": list(SEQUENCES) * 300}).with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias("id"), pl.lit("x" * 9).alias("text")
    )
    judged = judge(LearnedMixture(str(home / "run" / "weights.json"), max_repeats=1), frame)
    rare = judged.filter(domain="rare")["copies"].sum() / judged["copies"].sum()
    assert rare == pytest.approx(weights["rare"], abs=0.01)


PATHS = {name: f"nowhere/{name}" for name in SEQUENCES}
MIXED = MixedData(PATHS, PackedData, SEQ_LEN)


@pytest.mark.parametrize(
    ("data", "batch_size", "grad_accum_steps", "key"),
    [
        (PackedData("nowhere", SEQ_LEN), 24, 1, "data"),
        (MixedData({"easy": "nowhere"}, PackedData, SEQ_LEN), 24, 1, "data.paths"),
        (MIXED, 24, 2, "trainer.grad_accum_steps"),
        (MIXED, 2, 1, "trainer.batch_size"),
    ],
)
def test_mistakes(
    tmp_path: Path, data: TrainingData, batch_size: int, grad_accum_steps: int, key: str
) -> None:
    trainer = Trainer(
        max_steps=1, batch_size=batch_size, grad_accum_steps=grad_accum_steps, eval_every_steps=1
    )
    parts: dict[str, Any] = dict.fromkeys(
        ("model", "optimizer", "schedule", "precision", "parallelism", "checkpointing")
    )
    with pytest.raises(ConfigError) as caught:
        doremi(run=Run(tmp_path), data=data, trainer=trainer, **parts)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["data.weights={noise:1,easy:1}"], "error: data.weights={'noise': 1, 'easy': 1}: lacks rare"),
        (["data.weights=nowhere.json"], "error: data.weights=nowhere.json: no such file"),
        (["smoothing=2"], "error: smoothing=2: should be less than or equal to 1"),
    ],
)  # fmt: skip
def test_mistakes_name_their_key(home: Path, extra: list[str], says: str) -> None:
    done = Main(home)(*SMALL, *extra, "run_dir=wrong")
    assert done.code == 2, done.err
    assert says in done.err
