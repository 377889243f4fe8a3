"""A classifier trained, saved, loaded and asked; and what it scores on real messages."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm.classifiers.examples import LabelledRows, OneLabel
from llm.classifiers.fasttext import FastText
from llm.classifiers.normalisation import Normalisation
from llm.classifiers.recipe import Recipe
from llm.classifiers.text_classifier import TextClassifier
from llm.files import sha256_file
from llm.statistics import wilson_interval
from llm.types import ConfigError
from tests.curation.given import Pairs, classifier, train

BACKGROUND = ("moby-dick", "war-and-peace")
UNSEEN = ("bleak-house", "pepys-diary", "state-of-the-union-1945-2006")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(classifier(tmp_path_factory.mktemp("trained")))


def test_it_tells_what_it_was_taught(folder: Path):
    found = TextClassifier(folder)
    assert found.labels == ["sheep", "ships"]
    texts = pl.Series(["THE SHEEP graze\non the hill", "a ship </s> sails", "", "\n"])
    scores = found.scores(texts)
    assert scores[0] > 0.9
    assert scores[1] < 0.1
    assert np.isnan(scores[2:]).all()
    probabilities = found.probabilities(texts[:2])
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert found.probabilities(pl.Series([], dtype=pl.String)).shape == (0, 2)


def test_a_text_cut_off_by_its_own_words_is_read_to_its_end(folder: Path):
    found = TextClassifier(str(folder / "classifier.json"))
    plain, marked = found.scores(pl.Series(["a ship . the sheep graze", "a ship </s>. the sheep graze"]))
    assert plain == marked


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path):
    again = Path(classifier(tmp_path))
    assert sha256_file(again / "classifier.bin") == sha256_file(folder / "classifier.bin")
    assert (again / "classifier.json").read_bytes() == (folder / "classifier.json").read_bytes()


def test_pickled_without_the_model(folder: Path):
    found = TextClassifier(folder)
    before = found.scores(pl.Series(["the sheep"]))
    assert len(sent := pickle.dumps(found)) < 5000
    assert pickle.loads(sent).scores(pl.Series(["the sheep"])) == before


def test_quantised_is_smaller_and_says_nearly_the_same(tmp_path: Path):
    numbers = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400)]
    texts = Pairs(a=[f"cat {n} dog {n}x" for n in numbers], b=[f"sun {n} moon {n}y" for n in numbers])
    settings = {"dim": 8, "bucket": 1500, "epoch": 10}
    whole, small = (
        train(tmp_path / "w", texts, "a", **settings),
        train(tmp_path / "s", texts, "a", quantise=True, **settings),
    )
    files = [whole / "classifier.bin", small / "classifier.ftz"]
    assert files[1].stat().st_size < files[0].stat().st_size / 2
    asked = pl.Series(["cat dog", "sun moon"])
    assert TextClassifier(small).scores(asked) == pytest.approx(TextClassifier(whole).scores(asked), abs=0.1)


def test_files_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path):
    def refused(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            TextClassifier(path).prepare()
        assert caught.value.key == "path"
        return caught.value.mend

    assert "task=train_classifier" in refused(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with (copy / "classifier.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    assert "sha256" in refused(copy)
    (copy / "classifier.bin").unlink()
    assert "copy both" in refused(copy)
    (copy / "classifier.json").write_text(json.dumps({"format": 99}))
    assert "format" in refused(copy)
    (copy / "classifier.json").write_text("{")
    assert "cannot be read" in refused(copy)


def test_what_cannot_be_learned_is_said(tmp_path: Path):
    def recipe(positive: list[str], **texts: list[str]) -> Recipe:
        return Recipe({"pairs": Pairs(**texts)}, positive, Normalisation(), FastText(), precision_target=None)

    many = [f"word{'x' * i} y" for i in range(50)]
    for wrong, key in (
        (recipe(["c"], a=many, b=["z" + m for m in many]), "positive"),
        (recipe(["a"], a=many), "positive"),
        (recipe(["a"], a=many[:2], b=many[5:]), "examples"),
    ):
        with pytest.raises(ConfigError) as caught:
            wrong.split(0)
        assert caught.value.key == key
    with pytest.raises(ConfigError) as caught:
        Recipe({}, ["a"], Normalisation(), FastText(), development_fraction=0.6, test_fraction=0.4)
    assert caught.value.key == "test_fraction"
    with pytest.raises(ConfigError) as caught:
        FastText(min_n=3, max_n=2)
    assert caught.value.key == "min_n"


def toxicity(shared_dir: Path, books: tuple[str, ...]) -> Recipe:
    tweets = str(shared_dir / "data/hate-speech-davidson/labeled_data.csv.gz")
    prose = [str(shared_dir / "data/english-prose" / f"{book}.txt.gz") for book in books]
    return Recipe(
        {
            "messages": LabelledRows([tweets], "tweet", "class", {0: "toxic", 1: "toxic", 2: "civil"}),
            "background": OneLabel(prose, "civil", min_words=5, training_only=True),
        },
        ["toxic"],
        Normalisation(messages=True),
        FastText(),
        precision_target=0.99,
    )


def test_toxicity_of_messages_and_of_books_it_has_not_seen(shared_dir: Path, tmp_path: Path):
    """The parts share no message, the books are others than those learned from, the threshold is chosen
    on the development part.
    """
    recipe = toxicity(shared_dir, BACKGROUND)
    found = recipe.train(*recipe.split(seed=1), tmp_path, seed=1)
    trained = TextClassifier(tmp_path)
    flagged = total = 0
    for book in UNSEEN:
        path = shared_dir / "data/english-prose" / f"{book}.txt.gz"
        texts = pl.Series([example.text for example in OneLabel([str(path)], "civil").read()])
        flagged += int((trained.scores(texts) >= trained.threshold).sum())
        total += len(texts)
    prose = wilson_interval(flagged, total)
    print(f"test {found.positive}, {found.truth.size} messages; flagged prose {flagged} of {total} {prose}")
    assert found.truth.size > 3000
    assert found.positive.f1.low >= 0.9
    assert found.positive.precision.high >= 0.99
    assert total > 10_000
    assert prose.estimate <= 0.001
