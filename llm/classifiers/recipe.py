"""A classifier to be trained, declared: examples, how text is written, the model, the wanted precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from llm import files
from llm.classifiers import measuring
from llm.classifiers.examples import Examples
from llm.classifiers.fasttext import FastText
from llm.classifiers.measuring import Curve, Rates, Scores, Truth
from llm.classifiers.normalisation import Normalisation
from llm.classifiers.splits import Part, Split, split
from llm.classifiers.text_classifier import DESCRIPTION, FORMAT, positive_scores, predict
from llm.statistics import Interval, wilson_interval
from llm.types import ConfigError, inside

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Trained(NamedTuple):
    """What training left: the description, and what the two parts that were not learned from say."""

    description: dict[str, Any]
    development: Curve
    test: Curve
    scores: Scores
    truth: Truth
    positive: Rates
    classes: dict[str, Rates]
    accuracy: Interval


class Recipe:
    """What `task=train_classifier` trains.

    Args:
        examples: Sources of labelled texts by name.
        positive: Labels that count as positive; a text's score is the probability that it has one of them.
        normalisation: How text is written for the classifier.
        model: Settings of fastText.
        precision_target: The threshold is the lowest with this precision on the development part; null takes
            0.5.
        prevalence: Share of positive texts where the classifier will be used; null for that of the examples.
        development_fraction: Share of the examples that the threshold is chosen on.
        test_fraction: Share that is looked at once, at the end.
        measures: What the score is of, the attribute that a step adds: `quality` or `toxicity`. A step that
            wants another one refuses the classifier; null suits any.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        positive: Sequence[str],
        normalisation: Normalisation,
        model: FastText,
        precision_target: Fraction | None = 0.9,
        prevalence: Fraction | None = None,
        development_fraction: Fraction = 0.15,
        test_fraction: Fraction = 0.15,
        measures: str | None = None,
    ) -> None:
        self.check_arguments(development_fraction, test_fraction)
        self.examples = {name: source for name, source in examples.items() if source is not None}
        self.positive = [str(label) for label in positive]
        self.normalisation, self.model = normalisation, model
        self.precision_target, self.prevalence = precision_target, prevalence
        self.development_fraction, self.test_fraction = development_fraction, test_fraction
        self.measures = measures

    @staticmethod
    def check_arguments(development_fraction: float = 0.15, test_fraction: float = 0.15) -> None:
        """Something must be left to learn from.

        Raises:
            ConfigError: nothing is. Key `test_fraction`.
        """
        if development_fraction + test_fraction >= 1:
            mend = f"with development_fraction={development_fraction} nothing is left to learn from"
            raise ConfigError("test_fraction", test_fraction, mend)

    def fingerprint(self) -> str:
        """A digest of all files of examples."""
        return files.digest(self._digests())

    def _digests(self) -> dict[str, str]:
        found = {}
        for name, source in self.examples.items():
            with inside(f"examples.{name}"):
                found[name] = source.fingerprint()
        return found

    def split(self, seed: int) -> tuple[list[str], Split]:
        """The labels' names, and the normalised examples in three parts.

        Raises:
            ConfigError: fewer than two labels, a positive label that no example has, or a part without
                positive or without other examples.
        """
        texts: list[str] = []
        names: list[str] = []
        only: list[bool] = []
        for key, source in self.examples.items():
            before = len(texts)
            with inside(f"examples.{key}"):
                for text, label in source.read():
                    texts.append(text)
                    names.append(label)
            only += [source.training_only] * (len(texts) - before)
        labels = sorted(set(names))
        for label in self.positive:
            if label not in labels:
                raise ConfigError(
                    "positive", label, f"no example has this label; they have {', '.join(labels)}"
                )
        if not self.positive or len(labels) == len(self.positive):
            mend = f"needs some, not all of the labels of the examples ({', '.join(labels)})"
            raise ConfigError("positive", self.positive, mend)
        number = {label: i for i, label in enumerate(labels)}
        parts = split(
            self.normalisation(pl.Series(texts, dtype=pl.String)),
            [number[name] for name in names],
            only,
            development=self.development_fraction,
            test=self.test_fraction,
            seed=seed,
        )
        for name, part in (("train", parts.train), ("development", parts.development), ("test", parts.test)):
            n_positive = sum(labels[label] in self.positive for label in part.labels)
            if not 0 < n_positive < len(part):
                mend = (
                    f"{n_positive} of {len(part)} in the {name} part are positive; more examples are needed"
                )
                raise ConfigError("examples", f"{len(texts)} texts", mend)
        return labels, parts

    def train(self, labels: list[str], parts: Split, directory: Path, seed: int) -> Trained:
        """Learns, chooses the threshold, measures, and writes the classifier and its description.

        Raises:
            ConfigError: no threshold has the wanted precision.
        """
        with inside("model"):
            model, path = self.model.fit(parts.train.lines, parts.train.labels, directory, seed)
        positive = [labels.index(label) for label in self.positive]

        def ask(part: Part) -> tuple[Scores, Scores, Truth]:
            found = predict(model, part.lines, len(labels))
            return found, positive_scores(found, positive), np.isin(part.labels, positive)

        _, scores, truth = ask(parts.development)
        development = measuring.precision_recall(scores, truth, self.prevalence)
        threshold = 0.5
        if self.precision_target is not None:
            threshold = measuring.threshold_for(development, self.precision_target)
        probabilities, scores, truth = ask(parts.test)
        decided, actual = probabilities.argmax(axis=1), np.array(parts.test.labels)
        rates = measuring.rates(scores >= threshold, truth)
        classes = {
            label: measuring.rates(decided == number, actual == number) for number, label in enumerate(labels)
        }
        accuracy = wilson_interval(int((decided == actual).sum()), actual.size)
        description = {
            "format": FORMAT,
            "file": path.name,
            "sha256": files.sha256_file(path),
            "labels": labels,
            "positive": self.positive,
            "measures": self.measures,
            "threshold": threshold,
            "precision_target": self.precision_target,
            "prevalence": self.prevalence,
            "normalisation": asdict(self.normalisation),
            "model": asdict(self.model),
            "seed": seed,
            "data_sha256": self._digests(),
            "examples": {
                "train": len(parts.train),
                "development": len(parts.development),
                "test": len(parts.test),
                "repeated": parts.repeated,
                "contradicted": parts.contradicted,
            },
            "test": {"accuracy": accuracy.estimate, **rates.flat()},
        }
        files.write_json(directory / DESCRIPTION, description)
        curve = measuring.precision_recall(scores, truth, self.prevalence)
        return Trained(description, development, curve, scores, truth, rates, classes, accuracy)
