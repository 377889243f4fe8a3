"""One exam on one model: ask everything, score it, add it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm.evaluation.base import Advance, Aggregating, AnyExam, DirectExam, Paired, Result, mean_scores
from llm.evaluation.scorer import Scorer
from llm.statistics import Interval, paired_bootstrap
from llm.types import ConfigError, Conversation, Request

N_PROMPTS = 4
"""How many of an exam's prompts a result keeps for sample generations."""

CONFIDENCE = 0.95
"""Of every interval this room gives."""


def size(exam: AnyExam, scorer: Scorer) -> int:
    """How many units of progress `sit` will report."""
    if isinstance(exam, DirectExam):
        return exam.size(scorer)
    return sum(len(exam.requests(example)) for example in exam.examples())


def sit(exam: AnyExam, scorer: Scorer, advance: Advance = lambda _: None) -> Result:
    """Runs `exam` on the scorer's model.

    Args:
        exam: an `llm.types.Exam` or a `DirectExam`.
        scorer: the model under exam.
        advance: told of requests done.

    Returns:
        Metrics, and a row for each example with its id and scores.

    Raises:
        ConfigError: the exam's data are unusable or hold no examples.
    """
    if isinstance(exam, DirectExam):
        return exam.measure(scorer, advance)
    examples = list(exam.examples())
    if not examples:
        raise ConfigError("path", getattr(exam, "path", exam.name), "holds no examples")
    asked = [exam.requests(example) for example in examples]
    answers = iter(scorer.respond([request for requests in asked for request in requests], advance))
    scores = [
        exam.score(example, [next(answers) for _ in requests])
        for example, requests in zip(examples, asked, strict=True)
    ]
    metrics = exam.aggregate(scores) if isinstance(exam, Aggregating) else mean_scores(scores)
    rows = [
        {"id": example.get("id", number), **score}
        for number, (example, score) in enumerate(zip(examples, scores, strict=True))
    ]
    prompts = [requests[0].prompt for requests in asked[:N_PROMPTS] if requests]
    return Result(metrics, getattr(exam, "main_metric", next(iter(metrics))), rows, prompts)


def difference(exam: Paired, first: Result, second: Result) -> Interval:
    """Mean of second - first over the examples, on the score the exam calls `paired`, with its interval.

    Raises:
        ValueError: the two results are not of the same examples.
    """
    if _ids(first.rows) != _ids(second.rows):
        raise ValueError("the two results are not of the same examples in the same order")
    before, after = ([row[exam.paired] for row in result.rows] for result in (first, second))
    return paired_bootstrap(before, after, confidence=CONFIDENCE)


def sample(
    scorer: Scorer, prompts: Sequence[str | Conversation], max_new_tokens: int
) -> list[tuple[str, str]]:
    """Prompts as plain text, each with what the model writes after it (greedy)."""
    answers = scorer.respond([Request(prompt, None, max_new_tokens) for prompt in prompts])
    return [(_text(prompt), answer.text) for prompt, answer in zip(prompts, answers, strict=True)]


def _text(prompt: str | Conversation) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def _ids(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [row["id"] for row in rows]
