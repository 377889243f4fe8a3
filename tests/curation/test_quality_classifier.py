"""Documents kept by what a trained classifier says of them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.quality_classifier import QualityClassifier
from llm.curation.toxicity import Toxicity
from llm.types import ConfigError
from tests.curation.given import classifier
from tests.curation.test_steps import corpus


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return classifier(tmp_path_factory.mktemp("quality"))


FRAME = corpus(["the sheep graze on the green hill", "a ship sails across the cold sea", "", "a ship sails"],
               ["text", "text", "text", "code"])  # fmt: skip


def test_what_is_below_the_threshold_goes(trained: str):
    judged = judge(QualityClassifier(trained, except_domains=["code"]), FRAME)
    assert judged["keep"].to_list() == [True, False, True, True]
    assert judged["reason"].to_list() == [None, "low_quality", None, None]
    assert judged["score"].equals(judged["quality"], check_names=False)
    assert judged["quality"][0] > 0.9
    assert judged["quality"][2] is None, "nothing is said of a text without words"


def test_the_threshold_is_the_one_given_else_the_classifiers(trained: str, tmp_path: Path):
    assert judge(QualityClassifier(trained, threshold=0.0), FRAME)["keep"].all()
    assert judge(QualityClassifier(trained, threshold=1.0), FRAME)["keep"].to_list() == [
        False,
        False,
        True,
        False,
    ]
    for name in ("classifier.json", "classifier.bin"):
        (tmp_path / name).write_bytes((Path(trained) / name).read_bytes())
    found = json.loads((tmp_path / "classifier.json").read_text())
    before = QualityClassifier(str(tmp_path))
    keys = before.fingerprint(), before.tag_key()
    (tmp_path / "classifier.json").write_text(json.dumps({**found, "threshold": 1.0}))
    step = QualityClassifier(str(tmp_path))
    assert judge(step, FRAME)["keep"].to_list() == [False, False, True, False]
    assert step.fingerprint() != keys[0], "another threshold decides"
    assert step.tag_key() == keys[1], "the scores are the same"


def test_a_classifier_of_something_else(trained: str, tmp_path: Path):
    for name in ("classifier.json", "classifier.bin"):
        (tmp_path / name).write_bytes((Path(trained) / name).read_bytes())
    found = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps({**found, "measures": "toxicity"}))
    with pytest.raises(ConfigError, match="measures toxicity, not quality"):
        QualityClassifier(str(tmp_path)).prepare(print)
    Toxicity(str(tmp_path)).prepare(print)


def test_another_threshold_measures_nothing_again(trained: str, monkeypatch):
    step = QualityClassifier(trained)
    assert step.tag_key() == QualityClassifier(trained, threshold=0.3).tag_key()
    assert step.classifier.fingerprint() in step.tag_key()
    tagged = FRAME.with_columns(pl.Series("quality", [0.2, 0.9, None, 0.1]))
    monkeypatch.setattr(step.classifier, "scores", None)
    assert step.annotate(tagged.lazy()).collect()["keep"].to_list() == [False, True, True, False]


def test_no_classifier_is_found_out_before_any_work(tmp_path: Path):
    with pytest.raises(ConfigError, match="task=train_classifier") as caught:
        QualityClassifier(str(tmp_path)).prepare(print)
    assert caught.value.key == "path"


def test_it_says_what_it_keeps(trained: str):
    said: list[str] = []
    QualityClassifier(trained, threshold=0.25).prepare(said.append)
    assert said == ["quality: sheep at 0.25 and above"]
