"""task=pretrain, from a config to a checkpoint that others can use."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
import torch

from llm.checkpoints.local import load_model
from llm.models.accounting import count_parameters
from llm.runs.directory import read
from llm.types import Batch
from tests.conftest import Main

TINY = (
    "task=pretrain",
    "tokenizer=character",
    "data=text",
    "data.seq_len=16",
    "tracker=none",
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "schedule=constant",
    "optimizer.lr=1e-2",
    "trainer.max_steps=30",
    "trainer.batch_size=4",
    "trainer.eval_every_steps=10",
    "checkpointing.every_steps=10",
    "checkpointing.keep=2",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pretrain")
    (home / "text.txt").write_text("To be, or not to be, that is the question.\n" * 40)
    done = Main(home)(*TINY, "data.path=text.txt", "run_dir=run", "published={val_loss: 0.5, source: here}")
    assert done.code == 0, done.err
    return home / "run"


def test_it_learns_and_says_so(trained: Path) -> None:
    record = read(trained)
    metrics = record.result["metrics"]
    assert metrics["val_loss_before"] == pytest.approx(math.log(16), abs=0.7)  # 16 characters, all as likely
    assert metrics["val_loss"] < metrics["val_loss_before"] - 0.5
    assert metrics["objective"] == metrics["val_loss"]
    assert metrics["published"] == {"val_loss": 0.5, "source": "here"}
    assert record.result["tokens"] == 30 * 4 * 16
    assert [line["step"] for line in record.metrics if "val_loss" in line] == [0, 10, 20, 30]
    assert "0.5" in (trained / "report.html").read_text()


def test_its_own_loss_is_measured_by_name(trained: Path) -> None:
    home = Main(trained.parent)
    done = home("task=evaluate", "checkpoint=run", "evaluation=[validation_loss]", "run_dir=examined",
                "sample_tokens=0", "tracker=none")  # fmt: skip
    assert done.code == 0, done.err
    measured = read(trained.parent / "examined").result["metrics"]["validation_loss/loss"]
    assert measured == pytest.approx(read(trained).result["metrics"]["val_loss"], abs=1e-5)


def test_of_a_key_given_twice_the_last_counts_also_when_resumed(trained: Path) -> None:
    home = Main(trained.parent)
    steps = ("trainer.max_steps=20", "trainer.max_steps=10")
    assert home(*TINY, *steps, "data.path=text.txt", "run_dir=twice").code == 0
    done = home("resume=twice", "trainer.max_steps=20", "tracker=none")
    assert done.code == 0, done.err
    assert read(trained.parent / "twice").result["metrics"]["steps"] == 20


def test_the_checkpoint_is_the_model_of_the_last_line(trained: Path) -> None:
    model, tokenizer, info = load_model(trained)
    assert info["step"] == 30
    assert read(trained).result["n_params"] == count_parameters(model)
    held_out = ("To be, or not to be, that is the question.\n" * 40)[-172:]
    ids = torch.tensor(tokenizer.encode(held_out))
    n = (len(ids) - 1) // 16
    rows = ids[: n * 16].view(n, 16)
    targets = ids[1 : n * 16 + 1].view(n, 16)
    with torch.no_grad():
        logits = model(Batch(rows))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), targets.flatten())
    assert loss.item() == pytest.approx(read(trained).result["metrics"]["val_loss"], abs=0.05)
    kept = sorted(path.name for path in (trained / "checkpoints").glob("step_*"))
    assert kept == ["step_000020", "step_000030"]


def test_data_without_a_tokenizer_needs_one(main: Main, trained: Path) -> None:
    without = [o for o in TINY if not o.startswith("tokenizer=")]
    done = main(*without, "~tokenizer", f"data.path={trained.parent / 'text.txt'}")
    assert done.code == 2
    assert "error: tokenizer=None: " in done.err
    assert "tokenizer=bpe" in done.err


def test_data_with_a_tokenizer_needs_none(main: Main, trained: Path) -> None:
    texts = main.home / "texts.parquet"
    pl.DataFrame({"text": [f"{n} is {n}.\n" for n in range(200)]}).write_parquet(texts)
    done = main("task=tokenize", "tracker=none", "tokenizer=byte", f"train={texts}", f"validation={texts}",
                "run_dir=tokens")  # fmt: skip
    assert done.code == 0, done.err
    without = [o for o in TINY if not o.startswith(("tokenizer=", "data="))]
    done = main(
        *without, "~tokenizer", "data=packed", "data.path=tokens", "trainer.max_steps=2", "run_dir=run"
    )
    assert done.code == 0, done.err
    assert load_model(main.home / "run")[1].vocab_size == 259
    assert main("resume=run", "trainer.max_steps=3").code == 0  # with what was left out left out
    assert read(main.home / "run").result["metrics"]["steps"] == 3


def test_the_seed_decides_everything(main: Main, trained: Path) -> None:
    text = f"data.path={trained.parent / 'text.txt'}"
    assert main(*TINY, text, "run_dir=same").code == 0
    assert main(*TINY, text, "run_dir=other", "seed=7").code == 0
    same, other = read(main.home / "same").result, read(main.home / "other").result
    assert same["weights_sha256"] == read(trained).result["weights_sha256"]
    assert other["weights_sha256"] != same["weights_sha256"]


def test_documents_are_kept_apart(main: Main) -> None:
    texts = main.home / "texts.parquet"
    pl.DataFrame({"text": [f"{n} is {n}." for n in range(200)]}).write_parquet(texts)
    done = main("task=tokenize", "tracker=none", "tokenizer=byte", f"train={texts}", f"validation={texts}",
                "run_dir=tokens")  # fmt: skip
    assert done.code == 0, done.err
    without = [o for o in TINY if not o.startswith(("tokenizer=", "data="))]
    packed = [*without, "~tokenizer", "data=packed", "data.path=tokens", "trainer.max_steps=4"]
    runs = {"plain": [], "masked": ["data.document_mask=true"]}
    for name, options in runs.items():
        assert main(*packed, *options, f"run_dir={name}").code == 0
    plain, masked = (read(main.home / name).result for name in runs)
    assert masked["weights_sha256"] != plain["weights_sha256"]
    assert masked["metrics"]["val_loss"] != plain["metrics"]["val_loss"]
