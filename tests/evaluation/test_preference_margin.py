from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm.evaluation.preference_margin import PreferenceMargin
from llm.evaluation.runner import difference, sit
from llm.evaluation.scorer import Scorer
from llm.types import ConfigError
from tests.evaluation.conftest import Wrapped, reference_log_probs

ROWS: list[dict[str, Any]] = [
    {
        "id": str(i),
        "prompt": [{"role": "user", "content": f"Q{i}"}],
        "chosen": "yes" * (i + 1),
        "rejected": "no",
    }
    for i in range(6)
]


def test_margin_equals_reference(write: Any, model: Wrapped, tokenizer: Any) -> None:
    scorer = Scorer(model, tokenizer)
    exam = PreferenceMargin(write("p.jsonl", ROWS))
    result = sit(exam, scorer)
    expected = []
    for example in exam.examples():
        prompt, _ = scorer.chat.render(example["prompt"], add_generation_prompt=True)
        means = []
        for side in ("chosen", "rejected"):
            answer = [*tokenizer.encode(example[side]), scorer.chat.stop_ids[0]]
            logs = reference_log_probs(model, prompt + answer)[-len(answer) :]
            means.append(sum(logs) / len(logs))
        expected.append(means[0] - means[1])
    assert [row["id"] for row in result.rows] == list(range(6))
    assert [row["margin"] for row in result.rows] == pytest.approx(expected, abs=1e-4)
    assert result.metrics["margin"] == pytest.approx(sum(expected) / 6, abs=1e-4)
    assert result.metrics["accuracy"] == pytest.approx(sum(m > 0 for m in expected) / 6)
    assert result.main == "margin"


def test_comparison_is_paired(write: Any, model: Wrapped, tokenizer: Any) -> None:
    exam = PreferenceMargin(write("p.jsonl", ROWS))
    first = sit(exam, Scorer(model, tokenizer))
    second = sit(exam, Scorer(Wrapped(tokenizer.vocab_size, 64).apply(_shrink), tokenizer))
    interval = difference(exam, first, second)
    assert interval.estimate == pytest.approx(second.metrics["margin"] - first.metrics["margin"])
    assert interval.low < interval.estimate < interval.high
    same = difference(exam, first, first)
    assert (same.low, same.high) == (0, 0)
    fewer = sit(PreferenceMargin(write("q.jsonl", ROWS[:3])), Scorer(model, tokenizer))
    with pytest.raises(ValueError, match="same examples"):
        difference(exam, first, fewer)


def _shrink(module: Any) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data *= 0.5


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "hello", "chosen": "a", "rejected": "b"}, "`prompt` is not a list"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "`prompt` is not a list"),
        (
            {"prompt": [{"role": "robot", "content": "x"}], "chosen": "a", "rejected": "b"},
            "`prompt.0..role` is 'robot'",
        ),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "`prompt.0..content` is missing"),
        (
            {"prompt": [{"role": "user", "content": "x"}], "chosen": ["a"], "rejected": "b"},
            "`chosen` is missing, or not text",
        ),
        ({"prompt": [{"role": "user", "content": "x"}], "chosen": "a"}, "line 1: `rejected` is missing"),
    ],
)
def test_bad_rows(row: dict[str, Any], says: str, write: Any) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        PreferenceMargin(write("p.jsonl", [row]))
    assert error.value.key == "path"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        PreferenceMargin(str(tmp_path / "none.jsonl"))
