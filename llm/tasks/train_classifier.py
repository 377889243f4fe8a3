"""task=train_classifier: a fastText classifier from labelled texts, with its threshold and how good it is."""

from __future__ import annotations

from llm import files, runtime
from llm.classifiers import measuring
from llm.classifiers.recipe import Recipe, Trained
from llm.reports.classifier import precision_recall_png, reliability_png
from llm.runs.run import Run
from llm.types import inside

VERSION = 1

CURVE_POINTS = 200


def train_classifier(*, run: Run, classifier: Recipe) -> float:
    """Divides the examples, learns, chooses a threshold on one part and measures on another.

    The run's directory gets ``classifier.bin`` (or ``.ftz``) with ``classifier.json``, which the curation
    steps `quality_classifier` and `toxicity` take, ``precision_recall.png`` and ``reliability.png``, and the
    tables `classes` (precision, recall, F1 of each label with 95 % intervals), `thresholds` (the curve on the
    development part) and `reliability`.

    Args:
        run: Where the outputs go; its seed divides the examples and starts the training.
        classifier: What to train.

    Returns:
        F1 of the positive labels on the test part, at the chosen threshold.
    """
    with inside("classifier"):
        f1 = _train(run, classifier) if runtime.is_main() else 0.0
    return float(runtime.broadcast(f1))


def _train(run: Run, classifier: Recipe) -> float:
    run.note_data("examples", classifier.fingerprint())
    with run.progress("read the examples", None, unit="texts") as progress:
        labels, parts = classifier.split(run.seed)
        progress.advance(len(parts.train) + len(parts.development) + len(parts.test))
    run.say(
        f"{len(parts.train):,} texts to learn from, {len(parts.development):,} to choose the threshold on, "
        f"{len(parts.test):,} to measure on; left out: {parts.repeated:,} that repeat another, "
        f"{parts.contradicted:,} that stand there with two labels"
    )
    with run.progress("train", None, unit="texts") as progress:
        trained = classifier.train(labels, parts, run.directory, run.seed)
        progress.advance(len(parts.train))
    _report(run, trained)
    return trained.positive.f1.estimate


def _report(run: Run, trained: Trained) -> None:
    directory, threshold = run.directory, float(trained.description["threshold"])
    bins = measuring.reliability(trained.scores, trained.truth)
    metrics = {
        **trained.positive.flat(),
        "threshold": threshold,
        "accuracy": trained.accuracy.estimate,
        "accuracy_low": trained.accuracy.low,
        "accuracy_high": trained.accuracy.high,
        "calibration_error": measuring.calibration_error(bins),
    }
    files.write_bytes(
        directory / "precision_recall.png", precision_recall_png(trained.development, trained.test, threshold)
    )
    files.write_bytes(directory / "reliability.png", reliability_png(bins))
    names = ["precision", "recall", "f1"]
    run.log_table(
        "classes",
        ["label", "texts", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))],
        [[label, rates.n, *rates.flat().values()] for label, rates in trained.classes.items()],
    )
    curve = trained.development
    every = max(1, len(curve.thresholds) // CURVE_POINTS)
    rows = zip(*(column[::every].tolist() for column in curve), strict=True)
    run.log_table("thresholds", ["threshold", "precision", "recall"], [list(row) for row in rows])
    run.log_table(
        "reliability",
        ["low", "high", "texts", "mean_score", "positive", "positive_low", "positive_high"],
        [[one.low, one.high, one.n, one.mean_score, *one.positive] for one in bins],
    )
    positive = trained.positive
    for name, value in (
        ("precision", positive.precision),
        ("recall", positive.recall),
        ("F1", positive.f1),
        ("accuracy of all labels", trained.accuracy),
    ):
        run.say(f"{name}: {value.estimate:.4f} ({value.low:.4f} to {value.high:.4f})")
    run.log(metrics, step=0)
    run.summary.update(metrics)
