"""A trained fastText classifier: its files, verified, and what it says of texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm import files
from llm.classifiers.lines import LABEL_PREFIX
from llm.classifiers.normalisation import Normalisation
from llm.types import ConfigError

DESCRIPTION = "classifier.json"
FORMAT = 1

GIVE = "give the folder of a run of task=train_classifier"


class TextClassifier:
    """Probabilities of labels. What is pickled is the way to the files, not the model.

    Args:
        path: The folder that `task=train_classifier` left, or the ``classifier.json`` in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_model": None}

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """What ``classifier.json`` says: labels, positive, threshold, normalisation, how it was trained.

        Raises:
            ConfigError: no classifier is there, or one of another version. Key `path`.
        """
        given = Path(self.path).expanduser()
        place = given if given.is_file() else given / DESCRIPTION
        try:
            found = files.read_json(place)
        except FileNotFoundError:
            raise ConfigError("path", self.path, f"no {DESCRIPTION} there; {GIVE}") from None
        except (OSError, ValueError) as error:
            raise ConfigError("path", self.path, f"{place.name} cannot be read ({error}); {GIVE}") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ConfigError(
                "path", self.path, f"{place.name} describes no classifier of format {FORMAT}; {GIVE}"
            )
        return found

    @property
    def labels(self) -> list[str]:
        """All labels, in the order of `probabilities`."""
        return list(self.description["labels"])

    @property
    def positive(self) -> list[str]:
        """The labels whose probability is the score."""
        return list(self.description["positive"])

    @property
    def threshold(self) -> float:
        """The least score at which a text counts as positive."""
        return float(self.description["threshold"])

    def fingerprint(self) -> str:
        """A digest of all that scores depend on: the weights and how text is written for them."""
        found = self.description
        return files.digest([found["sha256"], found["labels"], found["positive"], found["normalisation"]])

    def prepare(self) -> None:
        """Verifies the files.

        Raises:
            ConfigError: one is missing, damaged or does not belong to the other. Key `path`.
        """
        weights = self._weights()
        if not weights.is_file():
            raise ConfigError("path", self.path, f"{weights.name} is not beside {DESCRIPTION}; copy both")
        if files.sha256_file(weights) != self.description["sha256"]:
            raise ConfigError(
                "path", self.path, f"{weights.name} is damaged or another's: its sha256 differs"
            )

    def probabilities(self, texts: pl.Series) -> NDArray[np.float64]:
        """Shape [N, labels]; a row of NaN for a text without words.

        Raises:
            ConfigError: as `prepare`.
        """
        if self._model is None:
            import fasttext  # a compiled module that only classifiers need

            self.prepare()
            self._model = fasttext.load_model(str(self._weights()))
        lines = Normalisation(**self.description["normalisation"])(texts).to_list()
        return predict(self._model, lines, len(self.labels))

    def scores(self, texts: pl.Series) -> NDArray[np.float64]:
        """Probability that a text is positive, shape [N]; NaN for a text without words."""
        labels = self.labels
        return positive_scores(self.probabilities(texts), [labels.index(label) for label in self.positive])

    def _weights(self) -> Path:
        given = Path(self.path).expanduser()
        return (given.parent if given.is_file() else given) / str(self.description["file"])


def predict(model: Any, lines: list[str], n_labels: int) -> NDArray[np.float64]:
    """Probabilities of labels ``0, 1, ...``, shape [N, labels]; a row of NaN for an empty line."""
    found = np.zeros((len(lines), n_labels))
    if lines:
        labels, values = model.predict(lines, k=n_labels)
        for row, (names, numbers) in enumerate(zip(labels, values, strict=True)):
            for name, number in zip(names, numbers, strict=True):
                found[row, int(name[len(LABEL_PREFIX) :])] = number
    found[[not line for line in lines]] = np.nan
    return np.clip(found, 0.0, 1.0)  # fastText adds 1e-5 inside its logarithm


def positive_scores(probabilities: NDArray[np.float64], positive: list[int]) -> NDArray[np.float64]:
    """The probability of any of the positive labels."""
    total: NDArray[np.float64] = probabilities[:, positive].sum(axis=1)
    return np.clip(total, 0.0, 1.0)
