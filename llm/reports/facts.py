"""What a report is told. Every part may be missing: the page shows what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class Stage(TypedDict, total=False):
    """One stage of a lifecycle, in order. `before` and `after` are its held-out loss."""

    name: str
    before: float | None
    after: float | None
    metric: str  # what before and after are; "validation loss" when absent
    seconds: float
    reused: bool
    note: str  # a few words: "3,412 documents", "BPE, 4,096 tokens"


class Score(TypedDict, total=False):
    """A model's number with its interval."""

    name: str  # of the model: "pretrained", "SFT", "DPO"
    value: float
    low: float
    high: float


class Exam(TypedDict, total=False):
    """A multiple-choice exam. Accuracies are fractions, 0 to 1."""

    name: str
    n_questions: int
    models: list[Score]
    chance: float
    baseline: float
    baseline_name: str  # "bag of words"


class Preferences(TypedDict, total=False):
    """Length-normalised log-probability of chosen minus rejected, in nats a token, on held-out pairs."""

    n_pairs: int
    models: list[Score]
    difference: Score  # the last model minus the one before, paired bootstrap
    baseline: float  # accuracy of the bag-of-words baseline on the pairs
    baseline_name: str


class Sample(TypedDict, total=False):
    """One generation."""

    prompt: str
    completion: str
    model: str


class Removal(TypedDict, total=False):
    """One curation step: how many documents were left after it."""

    step: str
    documents: int
    reason: str


class Facts(TypedDict, total=False):
    """All a page can show beyond what stands in the run directory itself.

    `verdict`: sentences; written from the numbers when absent. `data`: label and value, for the table of
    facts. `commands`: label and command line. `published`: any metrics' published values, shown beside the
    measured ones: ``{"val_loss": 1.88, "tolerance": 0.03, "source": "..."}``. `confidence`: of every
    interval, 0.95 when absent.
    """

    title: str
    verdict: list[str]
    stages: list[Stage]
    exam: Exam
    preferences: Preferences
    samples: list[Sample]
    funnel: list[Removal]
    data: Mapping[str, object]
    commands: Mapping[str, str]
    published: Mapping[str, object]
    confidence: float
