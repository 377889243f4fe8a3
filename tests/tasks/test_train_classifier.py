"""task=train_classifier from files to a classifier that a curation step takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm.curation.base import judge
from llm.curation.quality_classifier import QualityClassifier
from llm.curation.toxicity import Toxicity
from tests.conftest import Main
from tests.curation.test_steps import corpus

SMALL = ("classifier.model.dim=4", "classifier.model.bucket=1000", "classifier.model.lr=0.5", "tracker=none")


def sentences(kind: str) -> list[str]:
    names = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(300)]
    return [
        f"the {kind} of {a} and {b} is where they meet again" for a, b in zip(names, names[::-1], strict=True)
    ]


def pair(rows: dict[str, str]) -> list[str]:
    """The overrides that name a file of good texts and one of others."""
    kinds = {"positives": rows["garden"], "negatives": rows["harbour"]}
    return [f"classifier.examples.{name}.paths=[{path}]" for name, path in kinds.items()]


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, str]:
    """Files of one kind each, of which the second is noisy, and one of both with labels."""
    files = {kind: tmp_path / f"{kind}.jsonl" for kind in ("garden", "harbour", "labelled")}
    good, bad = sentences("garden"), sentences("harbour")
    bad[:30] = [text.replace("they", "nobody") for text in good[:30]]
    for kind, texts in (("garden", good), ("harbour", bad)):
        files[kind].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    labelled = [{"text": t, "kind": k} for k, texts in enumerate((good, bad)) for t in texts]
    files["labelled"].write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return {kind: str(path) for kind, path in files.items()}


def test_a_quality_classifier_from_two_sets_of_files(main: Main, rows: dict[str, str]):
    given = pair(rows)
    done = main("task=train_classifier", *given, *SMALL, "run_dir=first")
    assert done.code == 0, done.err
    first = main.home / "first"
    metrics = json.loads((first / "result.json").read_text())["metrics"]
    described = json.loads((first / "classifier.json").read_text())
    assert described["examples"] == {
        "train": 420, "development": 90, "test": 90, "repeated": 0, "contradicted": 0,
    }  # fmt: skip
    assert metrics["f1_low"] <= metrics["f1"] <= metrics["f1_high"]
    assert metrics["f1"] > 0.8
    assert metrics["threshold"] == described["threshold"]
    assert described["test"]["f1"] == metrics["f1"]
    assert "F1: " in done.err
    table = json.loads((first / "tables" / "thresholds.json").read_text())
    reached = [row for row in table["rows"] if row[1] >= 0.9]
    assert described["threshold"] == pytest.approx(min(row[0] for row in reached))
    assert {row[0] for row in json.loads((first / "tables" / "classes.json").read_text())["rows"]} == {
        "high",
        "low",
    }
    for name in ("precision_recall.png", "reliability.png"):
        assert (first / name).read_bytes().startswith(b"\x89PNG")
    judged = judge(QualityClassifier(str(first)), corpus([sentences("garden")[7], sentences("harbour")[99]]))
    assert judged["keep"].to_list() == [True, False]


def test_a_toxicity_classifier_from_labels(main: Main, rows: dict[str, str]):
    done = main(
        "task=train_classifier",
        "classifier=toxicity",
        f"classifier.examples.messages.paths=[{rows['labelled']}]",
        "classifier.examples.messages.label=kind",
        "classifier.examples.messages.rename={0: civil, 1: toxic}",
        f"classifier.examples.background.paths=[{rows['garden']}]",
        "classifier.precision_target=0.8",
        *SMALL,
        "run_dir=result",
    )
    assert done.code == 0, done.err
    described = json.loads((main.home / "result/classifier.json").read_text())
    assert described["positive"] == ["toxic"]
    assert described["examples"]["repeated"] == 300, "the background repeats what is measured on"
    judged = judge(
        Toxicity(str(main.home / "result")), corpus([sentences("garden")[7], sentences("harbour")[99]])
    )
    assert judged["keep"].to_list() == [True, False]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["classifier.examples.negatives.paths=[no.jsonl]"],
            "classifier.examples.negatives.paths=no.jsonl: no such file",
        ),
        (
            ["classifier.examples.negatives.text=body"],
            "classifier.examples.negatives.text=body: no such column",
        ),
        (
            ["classifier.positive=[best]"],
            "classifier.positive=best: no example has this label; they have high, low",
        ),
        (["classifier.precision_target=1.5"], "classifier.precision_target=1.5"),
        (["classifier.test_fraction=0.9"], "classifier.test_fraction=0.9"),
        (["classifier.model.min_n=3"], "classifier.model.min_n=3: is above max_n=0"),
    ],
)
def test_mistakes_are_one_line(main: Main, rows: dict[str, str], overrides: list[str], words: str):
    given = pair(rows)
    done = main("task=train_classifier", *given, *SMALL, *overrides)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
