"""Does a model find the preferred completion likelier? Held-out pairs, length-normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm.data.preferences import read_preferences
from llm.evaluation.aggregation import compute
from llm.evaluation.base import baseline_accuracy
from llm.inputs import digest
from llm.types import Request, Response


class PreferenceMargin:
    """Mean over pairs of log p(chosen)/tokens - log p(rejected)/tokens, in nats a token.

    The same number for any model, with or without a reference model, so an SFT model and the DPO model made
    of it compare pair by pair. Log-probabilities are those of the assistant's turn, its closing marker
    included: the tokens DPO trains on. (Length-normalised as in SimPO, Meng et al. 2024, eq. 3.)

    Args:
        path: JSON lines (``.gz`` too), each ``{"prompt": [{"role", "content"}, ...], "chosen", "rejected"}``.

        baseline: a JSON file with the pair accuracy of a simple baseline, reported beside the model's.
        baseline_key: dotted path of that number in the file.

    Raises:
        ConfigError: a file, or a row in it, is not as above.
    """

    main_metric = "margin"
    paired = "margin"

    def __init__(
        self,
        path: str,
        baseline: str | None = None,
        baseline_key: str = "baseline.pairs_accuracy",
        name: str = "preference_margin",
    ) -> None:
        self.path, self.name = path, name
        self._pairs = list(read_preferences([path], key="path"))
        self._baseline = None if baseline is None else baseline_accuracy(baseline, baseline_key)

    def examples(self) -> Iterator[Mapping[str, Any]]:
        """The pairs, their ``id`` a number in the file's order, their ``prompt`` a conversation."""
        return ({"id": number, **vars(pair)} for number, pair in enumerate(self._pairs))

    def requests(self, example: Mapping[str, Any]) -> list[Request]:
        """The chosen and the rejected completion."""
        return [
            Request(example["prompt"], example["chosen"]),
            Request(example["prompt"], example["rejected"]),
        ]

    def score(self, example: Mapping[str, Any], responses: Sequence[Response]) -> dict[str, float]:
        """``margin``, ``chosen`` and ``rejected`` log-probability, all in nats a token."""
        del example
        chosen, rejected = (response.log_likelihood / max(1, response.n_tokens) for response in responses)
        return {"margin": chosen - rejected, "chosen": chosen, "rejected": rejected}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The mean margin with its interval, and the share of pairs in the right order."""
        metrics = compute("preference_margin", [s["chosen"] for s in scores], [s["rejected"] for s in scores])
        if self._baseline is not None:
            metrics["baseline_accuracy"] = self._baseline
        return {**metrics, "n_examples": float(len(scores))}

    def fingerprint(self) -> str:
        """A digest of the pairs, part of a stage's key."""
        return digest([self.path], key="path")
