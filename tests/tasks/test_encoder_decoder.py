"""Encoder-decoder models on the command line: trained, resumed, examined; mistakes told."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from llm.checkpoints.local import load_model
from llm.data.seq2seq import PairData
from llm.evaluation.perplexity import ValidationLoss
from llm.evaluation.runner import sit
from llm.evaluation.scorer import Scorer
from llm.models.encoder_decoder import EncoderDecoder
from llm.runs.directory import read
from llm.tokenizers.sentinels import SentinelTokenizer
from tests.conftest import Main

TINY = (
    "task=pretrain",
    "tracker=none",
    "tokenizer=byte",
    "data.seq_len=32",
    "model.d_model=32",
    "model.n_layers=1",
    "model.n_heads=2",
    "trainer.batch_size=16",
    "trainer.eval_every_steps=40",
    "trainer.eval_batches=2",
    "schedule=constant",
    "schedule.warmup_steps=0",
    "optimizer.lr=1e-2",
    "checkpointing.every_steps=20",
)
T5 = ("model=t5", "model.head_dim=16", "model.d_ff=64")
CORRUPTED = (*T5, "data=span_corruption", "data.n_sentinels=8")
GIVEN = (*CORRUPTED, "data.corpus.path=text.txt")
STEPS = "trainer.max_steps=40"
TEXT = (
    "to be or not that is the question whether tis nobler in mind suffer slings and arrows of outrageous "
    "fortune take arms against a sea troubles by opposing end them"
)
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of words in any order; and pairs that ask for the letters that were left out of its words."""
    folder = tmp_path_factory.mktemp("t5")
    draw = random.Random(0)
    (folder / "text.txt").write_text(" ".join(draw.choice(WORDS) for _ in range(4000)))
    for name, n in (("train", 200), ("held_out", 60)):
        chosen = [" ".join(draw.choice(WORDS) for _ in range(3)) for _ in range(n)]
        rows = [{"source": text, "target": text.split()[1]} for text in chosen]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    done = Main(home)(*TINY, *CORRUPTED, STEPS, "data.corpus.path=text.txt", "run_dir=run")
    assert done.code == 0, done.err
    return home / "run"


def test_it_learns_and_its_checkpoint_is_whole(trained: Path) -> None:
    metrics = read(trained).result["metrics"]
    assert metrics["val_loss"] < metrics["val_loss_before"] - 1.5
    model, tokenizer, info = load_model(trained)
    assert isinstance(model, EncoderDecoder)
    assert isinstance(tokenizer, SentinelTokenizer)
    assert model.vocab_size == tokenizer.vocab_size == 259 + 8
    assert info["step"] == 40
    # sources of 32 and targets of 8: all that is read
    assert read(trained).result["tokens"] == 40 * 16 * (32 + 8)


def test_a_run_that_was_cut_off_ends_with_the_same_bits(home: Path, trained: Path) -> None:
    main = Main(home)
    assert (
        main(*TINY, *CORRUPTED, "trainer.max_steps=20", "data.corpus.path=text.txt", "run_dir=cut").code == 0
    )
    done = main("resume=cut", STEPS)
    assert done.code == 0, done.err
    assert read(home / "cut").result["weights_sha256"] == read(trained).result["weights_sha256"]


def test_filling_gaps_lowers_the_loss_of_pairs_never_seen(home: Path, trained: Path) -> None:
    """Held-out pairs, which no model here was trained on: at the first weights and at the last."""
    model, tokenizer, _info = load_model(trained)
    pairs = PairData(str(home / "train.jsonl"), str(home / "held_out.jsonl"), 32)
    exam = ValidationLoss(pairs)
    after = sit(exam, Scorer(model, tokenizer), lambda n: None)
    model.init_weights(torch.Generator().manual_seed(0))
    before = sit(exam, Scorer(model, tokenizer), lambda n: None)
    assert after.metrics["loss"] < before.metrics["loss"] - 0.5
    assert after.metrics["loss"] < math.log(259 + 8) - 0.2  # it knows something, not only less noise
    # what a person reads as a sample's beginning is a source, without its end
    assert after.prompts[0] == json.loads((home / "held_out.jsonl").read_text().splitlines()[0])["source"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((*T5, "data=text", "data.path=text.txt"), "error: data=without pairs: brings no source"),
        (
            ("model=decoder", "data=span_corruption", "data.corpus.path=text.txt"),
            "error: data=pairs: has a source for an encoder to read, this model has none",
        ),
        ((*CORRUPTED, "data.corpus.path=no.txt"), "error: data.corpus.path=no.txt: no such file"),
        ((*GIVEN, "data.start_id=3"), "error: data.start_id=3: the model's decoder"),
        ((*GIVEN, "model.start_id=999"), "error: model.start_id=999: is no token"),
    ],
)  # fmt: skip
def test_mistakes(home: Path, given: tuple[str, ...], says: str) -> None:
    done = Main(home)(*TINY, STEPS, *given)
    assert done.code == 2
    assert says in done.err, done.err
