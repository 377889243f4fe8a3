"""What an exam is, and what it leaves.

An exam is an object a config names (`llm.types.Exam`): it knows its examples, what to ask of a model for
each, and what the answers are worth. It never sees the model, so the same object can examine any model and
reward one in training::

    examples() -> example -> requests(example) -> [Request]      exam
                                    |
                               Scorer.respond                    model + tokenizer
                                    |
    metrics <- aggregate(scores) <- score(example, [Response])   exam

Beyond `llm.types.Exam` the runner uses these when an exam has them:

``aggregate(scores)``
    Per-example scores to metrics; else each score's mean and standard error (`mean_scores`).
``main_metric``
    The metric the exam is remembered by; else the first one.
``paired``
    The per-example score on which two models are compared example by example.

An exam that cannot be put as requests because its data are token ids already (validation loss) is a
`DirectExam`: it gets the scorer and returns its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from llm.statistics import mean_standard_error
from llm.types import ConfigError, Conversation, Exam

if TYPE_CHECKING:
    from llm.evaluation.scorer import Scorer

Advance = Callable[[int], object]
"""Told how many more units are done; what progress bars are made of."""


@dataclass(frozen=True)
class Result:
    """What one exam says of one model.

    metrics: the exam's numbers. main: the name of the one it is remembered by. rows: one mapping an
    example: its id and its scores. prompts: a few of the exam's prompts, for sample generations.
    """

    metrics: dict[str, float]
    main: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str | Conversation] = field(default_factory=list)


@runtime_checkable
class DirectExam(Protocol):
    """An exam that works on the model itself."""

    name: str

    def measure(self, scorer: Scorer, advance: Advance) -> Result:
        """The whole exam; `advance` is told of units done."""
        ...

    def size(self, scorer: Scorer) -> int:
        """How many times `measure` will advance, summed."""
        ...


@runtime_checkable
class Aggregating(Protocol):
    """An exam that knows better than the mean what its examples' scores add up to."""

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Metrics of the whole exam from its examples' scores, in their order."""
        ...


@runtime_checkable
class Paired(Protocol):
    """An exam on which two models compare example by example, by the score named `paired`."""

    paired: str


AnyExam = Exam | DirectExam


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each score's mean over the examples, and its standard error as ``<score>_standard_error``."""
    metrics: dict[str, float] = {}
    for key in scores[0]:
        values = [score[key] for score in scores]
        metrics[key] = float(np.mean(values))
        metrics[f"{key}_standard_error"] = mean_standard_error(values)
    return metrics


def baseline_accuracy(path: str, key: str) -> float:
    """The number at the dotted `key` of a JSON file: what a simple baseline scored on the same exam.

    Raises:
        ConfigError: ``baseline``: the file cannot be read; ``baseline_key``: it has no such number.
    """
    try:
        value: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        for part in key.split("."):
            value = value[part]
        return float(value)
    except OSError as error:
        raise ConfigError("baseline", path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("baseline", path, "is not a JSON file") from None
    except json.JSONDecodeError as error:
        raise ConfigError("baseline", path, f"is not JSON: {error.msg}") from None
    except (KeyError, TypeError, ValueError):
        raise ConfigError("baseline_key", key, f"names no number in {path}") from None
