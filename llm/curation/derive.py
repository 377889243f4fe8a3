"""From documented objects to conversations, preference pairs and an exam; baselines keep them honest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llm.curation import siblings
from llm.curation.base import DocumentedObject, order_key
from llm.curation.baseline import (
    FirstWord,
    Learned,
    Overlap,
    Rate,
    exam_accuracy,
    pairs_accuracy,
    pieces,
    shared_prefixes,
    trigrams,
)
from llm.curation.questions import conversations
from llm.types import ConfigError

OVERLAPS = ("words", "trigrams", "prefixes")

Pair = dict[str, str]
Question = dict[str, Any]


class DeriveQuestions:
    """Writes what fine-tuning, preference optimisation and the exam need.

    Args:
        max_conversations: Training conversations at most.
        max_pairs: Training preference pairs at most.
        validation_pairs: Held-out preference pairs at most.
        exam_questions: Held-out four-choice questions at most.
        pairs_ceiling: Highest accuracy a bag-of-words baseline may reach on held-out pairs (chance is 0.5).
        exam_ceiling: The same for the exam (chance is 0.25).
        seed: Chooses phrasings, sets and orders.
    """

    def __init__(
        self,
        *,
        max_conversations: Annotated[int, Field(gt=0)] = 12_000,
        max_pairs: Annotated[int, Field(gt=0)] = 4_000,
        validation_pairs: Annotated[int, Field(gt=0)] = 600,
        exam_questions: Annotated[int, Field(gt=0)] = 500,
        pairs_ceiling: Annotated[float, Field(ge=0.5, le=1)] = 0.58,
        exam_ceiling: Annotated[float, Field(ge=0.25, le=1)] = 0.32,
        seed: int = 0,
    ) -> None:
        self.max_conversations, self.max_pairs = max_conversations, max_pairs
        self.validation_pairs, self.exam_questions = validation_pairs, exam_questions
        self.pairs_ceiling, self.exam_ceiling, self.seed = pairs_ceiling, exam_ceiling, seed

    def write(
        self,
        train: Sequence[DocumentedObject],
        validation: Sequence[DocumentedObject],
        directory: Path,
        advance: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """Writes conversations, preferences and the exam into `directory`; returns the summary.

        Args:
            train: Describable objects of the training side.
            validation: Describable objects of the held-out side, copies of training ones already removed.
            directory: Where the five files go.
            advance: Called four times, to show progress.
        """
        answers = [one.summary for one in train]
        overlaps: dict[str, Rate] = {
            "words": Overlap(pieces, answers),
            "trigrams": Overlap(trigrams, answers),
            "prefixes": shared_prefixes,
        }
        rule = siblings.Rule(2, self.pairs_ceiling, 4, 1.5, self.max_pairs, self.seed)
        pairs = _pairs(siblings.closed_sets(train, rule, list(overlaps.values())))
        advance()
        learned = Learned(pairs, seed=self.seed)
        rates: dict[str, Rate] = {
            **overlaps, "learned": learned, "first_word": FirstWord(pairs),
            "length": lambda _, answer: len(answer),
        }  # fmt: skip
        # held-out sets are also balanced against the trained baseline, which has not seen them
        against: list[Rate] = [*overlaps.values(), learned]
        rule = siblings.Rule(2, self.pairs_ceiling, 4, 1.5, self.validation_pairs, self.seed)
        held_pairs = _pairs(siblings.closed_sets(validation, rule, against))
        advance()
        rule = siblings.Rule(4, self.exam_ceiling, 4, 1.6, self.exam_questions, self.seed)
        exam = _exam(siblings.closed_sets(validation, rule, against), self.seed)
        for key, found in (("validation_pairs", held_pairs), ("exam_questions", exam)):
            if not found:
                mend = "the corpus yields none under the ceiling: give it more packages, or raise the ceiling"
                raise ConfigError(key, getattr(self, key), mend)
        advance()
        told = conversations(train, seed=self.seed, limit=self.max_conversations)
        held_told = conversations(validation, seed=self.seed, limit=max(1, self.max_conversations // 8))
        write_jsonl(directory / "conversations_train.jsonl", told)
        write_jsonl(directory / "conversations_validation.jsonl", held_told)
        write_jsonl(directory / "preferences_train.jsonl", map(_preference_row, pairs))
        write_jsonl(directory / "preferences_validation.jsonl", map(_preference_row, held_pairs))
        write_jsonl(directory / "exam.jsonl", exam)
        advance()
        return {
            "conversations": {"train": len(told), "validation": len(held_told)},
            "preferences": {"train": len(pairs), "validation": len(held_pairs)},
            "exam": {"questions": len(exam), "chance": 0.25},
            "baseline": _baselines(rates, pairs, held_pairs, exam),
        }


def _baselines(
    rates: Mapping[str, Rate], pairs: Sequence[Pair], held_pairs: Sequence[Pair], exam: Sequence[Question]
) -> dict[str, Any]:
    """Accuracy of every baseline; the headline figures are those of the best bag of words."""
    asked = [(row["question"], row["choices"], row["answer"]) for row in exam]
    by_name = {
        name: {
            "pairs_accuracy": pairs_accuracy(rate, held_pairs),
            "pairs_accuracy_train": pairs_accuracy(rate, pairs),
            "exam_accuracy": exam_accuracy(rate, asked),
        }
        for name, rate in rates.items()
    }
    words = [by_name[name] for name in (*OVERLAPS, "learned")]
    return {
        "pairs_accuracy": max(found["pairs_accuracy"] for found in words),
        "exam_accuracy": max(found["exam_accuracy"] for found in words),
        # the trained one has seen the training pairs, so only the others say something about them
        "pairs_accuracy_train": max(found["pairs_accuracy_train"] for found in words[:-1]),
        "by_name": {name: {k: round(v, 4) for k, v in found.items()} for name, found in by_name.items()},
    }


def _pairs(sets: Iterable[siblings.Set]) -> list[Pair]:
    """Both directions of every pair of siblings: each description is right once and wrong once."""
    return [
        {
            "id": f"{asked.name}|{other.name}",
            "question": siblings.question_for(asked),
            "chosen": asked.summary,
            "rejected": other.summary,
        }
        for first, second in sets
        for asked, other in ((first, second), (second, first))
    ]


def _preference_row(pair: Pair) -> dict[str, Any]:
    prompt = [{"role": "user", "content": pair["question"]}]
    return {"id": pair["id"], "prompt": prompt, "chosen": pair["chosen"], "rejected": pair["rejected"]}


def _exam(sets: Iterable[siblings.Set], seed: int) -> list[Question]:
    """One question a member; the choices of a set in a fresh seeded order each time."""
    rows: list[Question] = []
    for number, members in enumerate(sets):
        for asked in members:
            choices = sorted(members, key=lambda one: order_key(seed, number, asked.name, one.name))
            rows.append(
                {
                    "id": f"{asked.name}|{number}",
                    "question": siblings.question_for(asked),
                    "choices": [one.summary for one in choices],
                    "answer": choices.index(asked),
                }
            )
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, under a temporary name first."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(path)
