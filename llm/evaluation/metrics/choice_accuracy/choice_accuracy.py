"""Accuracy of choosing one of several answers, with what it takes to judge it: error, interval, chance."""

import datasets
import evaluate
import numpy as np

from llm.statistics import binomial_standard_error, wilson_interval

_DESCRIPTION = "Share of questions answered right, with standard error, Wilson interval and chance."

_ARGUMENTS = """
Args:
    predictions: index of the answer given, one for each question.
    references: index of the right answer.
    n_choices: how many answers each question offered.
Returns:
    accuracy, standard_error, low and high (95 % Wilson interval), chance (accuracy of guessing).
"""


class ChoiceAccuracy(evaluate.Metric):  # type: ignore[misc]  # the library has no types
    """The `evaluate` module; see `_ARGUMENTS`."""

    def _info(self) -> evaluate.MetricInfo:
        whole = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_ARGUMENTS,
            features=datasets.Features({"predictions": whole, "references": whole, "n_choices": whole}),
        )

    def _compute(
        self, predictions: list[int], references: list[int], n_choices: list[int]
    ) -> dict[str, float]:
        n = len(references)
        right = int(np.sum(np.asarray(predictions) == np.asarray(references)))
        interval = wilson_interval(right, n)
        return {
            "accuracy": interval.estimate,
            "standard_error": binomial_standard_error(right, n),
            "low": interval.low,
            "high": interval.high,
            "chance": float(np.mean(1 / np.asarray(n_choices))),
        }
