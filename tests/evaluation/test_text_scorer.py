"""A checkpoint as a judge of texts: its scores against the model's own logits."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import polars as pl
import pytest
import torch

from llm.checkpoints.local import load_model
from llm.curation.base import judge
from llm.curation.perplexity import Perplexity
from llm.curation.top_share import TopShare
from llm.evaluation.text_scorer import CheckpointScorer
from llm.types import Batch, ConfigError, TextScorer
from tests.curation.given import checkpoint
from tests.curation.test_steps import corpus

TEXTS = ["All work and no play.", "\u00e4\u00f6\u00fc", "zzzz", "x" * 600, ""]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("scorer"))


def reference(run: str, text: str) -> float:
    """Nats of a text that fits into the context, after the document separator, in float64."""
    model, tokenizer, _ = load_model(run)
    assert tokenizer.eos_id is not None
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    with torch.no_grad():
        logits = model(Batch(torch.tensor([ids[:-1]])))[0].double()
    picked = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])
    return -float(picked.sum())


def test_scores_are_the_models(run: str):
    scorer = CheckpointScorer(run)
    assert isinstance(scorer, TextScorer)
    found = scorer.score(TEXTS)
    for text, score in zip(TEXTS[:3], found, strict=False):
        assert score.nats == pytest.approx(reference(run, text), rel=1e-5)
        assert score.n_tokens == score.n_bytes == len(text.encode()), "a token is a byte here"
    assert (found[3].n_tokens, found[3].n_bytes) == (600, 600), "longer than the context"
    assert found[4] == (0, 0, 0)


def test_a_text_has_one_score_whatever_its_neighbours(run: str):
    scorer = CheckpointScorer(run)
    assert (
        [scorer.score([text])[0] for text in TEXTS] == scorer.score(TEXTS) == scorer.score(TEXTS[::-1])[::-1]
    )


def test_only_the_beginning_is_read(run: str):
    short, long = CheckpointScorer(run, max_chars=10), CheckpointScorer(run)
    assert short.score(["a" * 10 + "b" * 50]) == long.score(["a" * 10])
    assert short.fingerprint() != long.fingerprint()


def test_pickled_without_the_model(run: str):
    scorer = CheckpointScorer(run)
    before = scorer.score(TEXTS)
    assert len(sent := pickle.dumps(scorer)) < 2000
    assert pickle.loads(sent).score(TEXTS) == before


def test_no_model_is_found_out_before_any_work(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        Perplexity(CheckpointScorer(str(tmp_path))).prepare(print)
    assert caught.value.key == "scorer.checkpoint"


def test_the_step_with_a_model(run: str):
    """An untrained model: what counts is that the number is the model's, and the order its order."""
    step = Perplexity(CheckpointScorer(run))
    judged = judge(step, corpus(TEXTS))
    assert judged["keep"].all()
    nats = reference(run, TEXTS[0]) / len(TEXTS[0])
    assert judged["perplexity"][0] == pytest.approx(math.exp(nats), rel=1e-3)
    assert judged["bits_per_byte"][0] == pytest.approx(nats / math.log(2), rel=1e-3)
    assert judged["perplexity"][4] is None
    best = judge(TopShare(step, "perplexity", 0.2, best="lowest"), corpus(TEXTS))
    lowest = judged["perplexity"].arg_min()
    assert best["keep"].to_list() == [place == lowest for place in range(5)]
    assert isinstance(best["score"], pl.Series)
