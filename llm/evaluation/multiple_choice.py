"""Multiple choice: the answer a model finds likeliest, by the whole text, by token and by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from llm.evaluation.aggregation import compute
from llm.evaluation.base import baseline_accuracy
from llm.inputs import Place, digest, read_jsonl
from llm.types import Message, Request, Response


class MultipleChoice:
    """Questions with several answers, of which the model's likeliest counts as its choice.

    A choice's log-probability falls with its length, so the plain sum prefers short answers. Dividing by
    tokens or by UTF-8 bytes takes length out; bytes do not depend on the tokenizer (Brown et al. 2020,
    section 2.4, and the ``acc_norm`` of EleutherAI's harness). All three accuracies are given; the one by
    byte is the main one.

    Args:
        path: JSON lines (``.gz`` too), each ``{"id", "question", "choices": [text, ...], "answer": index}``.
        style: ``chat`` puts the question as a user's turn and scores the choice as the assistant's;
            ``plain`` scores ``question + "\\n" + choice`` as running text, for models before SFT.
        baseline: a JSON file with the accuracy of a simple baseline, reported beside the model's.
        baseline_key: dotted path of that number in the file.

    Raises:
        ConfigError: a file, or a row in it, is not as above.
    """

    main_metric = "accuracy_per_byte"
    paired = "correct_per_byte"

    def __init__(
        self,
        path: str,
        style: Literal["chat", "plain"] = "chat",
        baseline: str | None = None,
        baseline_key: str = "baseline.exam_accuracy",
        name: str = "multiple_choice",
    ) -> None:
        self.path, self.style, self.name = path, style, name
        self._rows = [_checked(place, row) for place, row in read_jsonl([path], key="path")]
        self._baseline = None if baseline is None else baseline_accuracy(baseline, baseline_key)

    def examples(self) -> Iterator[Mapping[str, Any]]:
        """The rows of the file."""
        return iter(self._rows)

    def requests(self, example: Mapping[str, Any]) -> list[Request]:
        """One continuation for each choice."""
        if self.style == "chat":
            prompt: Any = (Message("user", example["question"]),)
        else:
            prompt = example["question"] + "\n"
        return [Request(prompt, choice) for choice in example["choices"]]

    def score(self, example: Mapping[str, Any], responses: Sequence[Response]) -> dict[str, float]:
        """Which choice is likeliest by each measure, and whether that is the right one.

        Returns:
            ``choice, choice_per_token, choice_per_byte`` (indices), ``correct`` and its two siblings (0
            or 1), ``answer``, ``n_choices``.
        """
        sums = np.array([response.log_likelihood for response in responses])
        tokens = np.array([max(1, response.n_tokens) for response in responses])
        n_bytes = np.array([max(1, len(choice.encode())) for choice in example["choices"]])
        scores = {"answer": float(example["answer"]), "n_choices": float(len(responses))}
        for suffix, values in (("", sums), ("_per_token", sums / tokens), ("_per_byte", sums / n_bytes)):
            scores[f"choice{suffix}"] = float(values.argmax())
            scores[f"correct{suffix}"] = float(values.argmax() == example["answer"])
        return scores

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Accuracies with standard errors and 95 % Wilson intervals, chance, baseline, how many questions."""
        metrics: dict[str, float] = {}
        for suffix in ("_per_byte", "_per_token", ""):
            found = compute(
                "choice_accuracy",
                [int(score[f"choice{suffix}"]) for score in scores],
                [int(score["answer"]) for score in scores],
                n_choices=[int(score["n_choices"]) for score in scores],
            )
            chance = found.pop("chance")
            metrics[f"accuracy{suffix}"] = found.pop("accuracy")
            metrics |= {f"accuracy{suffix}_{key}": value for key, value in found.items()}
        metrics["chance"] = chance
        if self._baseline is not None:
            metrics["baseline_accuracy"] = self._baseline
        metrics["n_examples"] = float(len(scores))
        return metrics

    def fingerprint(self) -> str:
        """A digest of the questions, part of a stage's key."""
        return digest([self.path], key="path")


def _checked(place: Place, row: dict[str, Any]) -> dict[str, Any]:
    question, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    if not isinstance(question, str):
        raise place.wrong("`question` is missing, or not text")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) and c for c in choices)
    ):
        raise place.wrong("`choices` must be a list of two or more texts")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise place.wrong(f"`answer` is {answer!r}; an index from 0 to {len(choices) - 1} is needed")
    return row
