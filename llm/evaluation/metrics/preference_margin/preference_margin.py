"""How much likelier a model finds preferred completions than rejected ones, a token."""

import datasets
import evaluate
import numpy as np

from llm.statistics import binomial_standard_error, bootstrap_interval, mean_standard_error

_DESCRIPTION = "Mean margin between length-normalised log-probabilities of chosen and rejected completions."

_ARGUMENTS = """
Args:
    predictions: log-probability a token of each chosen completion, in nats.
    references: the same for the rejected completion of the same prompt.
Returns:
    margin with margin_standard_error, margin_low and margin_high (95 % bootstrap interval); accuracy (share
    of pairs with a positive margin, ties half) with accuracy_standard_error; mean chosen and rejected.
"""


class PreferenceMargin(evaluate.Metric):  # type: ignore[misc]  # the library has no types
    """The `evaluate` module; see `_ARGUMENTS`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_ARGUMENTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        chosen, rejected = np.asarray(predictions), np.asarray(references)
        margins = chosen - rejected
        wins = float(np.mean((margins > 0) + 0.5 * (margins == 0)))
        interval = bootstrap_interval(margins)
        return {
            "margin": interval.estimate,
            "margin_standard_error": mean_standard_error(margins),
            "margin_low": interval.low,
            "margin_high": interval.high,
            "accuracy": wins,
            "accuracy_standard_error": binomial_standard_error(wins * len(margins), len(margins)),
            "chosen": float(chosen.mean()),
            "rejected": float(rejected.mean()),
        }
