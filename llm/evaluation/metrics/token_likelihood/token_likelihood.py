"""How well a model predicts text: loss in nats a token, perplexity, and bits a byte."""

import math

import datasets
import evaluate

_DESCRIPTION = "Mean negative log-likelihood of tokens, its exponential, and bits per UTF-8 byte of text."

_ARGUMENTS = """
Args:
    predictions: summed log-likelihood of each segment's tokens, in nats.
    references: how many tokens each segment scored.
    n_bytes: UTF-8 bytes those tokens stand for, over all segments; omit where that has no meaning.
Returns:
    loss (nats a token), perplexity (exp of it), n_tokens; bits_per_byte when n_bytes is given. Only the
    last compares models whose tokenizers differ.
"""


class TokenLikelihood(evaluate.Metric):  # type: ignore[misc]  # the library has no types
    """The `evaluate` module; see `_ARGUMENTS`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_ARGUMENTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: list[float], references: list[int], n_bytes: float | None = None
    ) -> dict[str, float]:
        nats, n_tokens = -math.fsum(predictions), sum(references)
        loss = nats / n_tokens
        metrics = {
            "loss": loss,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "n_tokens": float(n_tokens),
        }
        if n_bytes:
            metrics["bits_per_byte"] = nats / math.log(2) / n_bytes
        return metrics
