from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm.evaluation.multiple_choice import MultipleChoice
from llm.evaluation.runner import sit
from llm.evaluation.scorer import Scorer
from llm.types import ConfigError, Message, Response
from tests.evaluation.conftest import Wrapped, reference_log_probs

ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "Capital of France?", "choices": ["Paris", "Rome", "Oslo", "Bonn"], "answer": 0},
    {"id": "b", "question": "Two plus two?", "choices": ["five thousand", "four"], "answer": 1},
    {"id": "c", "question": "Où?", "choices": ["là-bas", "ici", "nulle part"], "answer": 2},
]


def test_requests(write: Any) -> None:
    chat, plain = (MultipleChoice(write("e.jsonl", ROWS), style) for style in ("chat", "plain"))
    [first, *_] = chat.requests(ROWS[0])
    assert first.prompt == (Message("user", "Capital of France?"),)
    assert [r.continuation for r in plain.requests(ROWS[1])] == ["five thousand", "four"]
    assert plain.requests(ROWS[1])[0].prompt == "Two plus two?\n"


def test_score_by_sum_token_and_byte(write: Any) -> None:
    exam = MultipleChoice(write("e.jsonl", ROWS))
    example = {"choices": ["é" * 10, "ab", "abc"], "answer": 2}
    scores = exam.score(example, [Response(-10, 2), Response(-3, 1), Response(-4, 4)])
    assert (scores["choice"], scores["correct"]) == (1, 0)  # sums -10, -3, -4
    assert (scores["choice_per_token"], scores["correct_per_token"]) == (2, 1)  # -5, -3, -1
    assert (scores["choice_per_byte"], scores["correct_per_byte"]) == (0, 0)  # 20 bytes: -.5, -1.5, -1.33


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_result_equals_reference(style: Any, write: Any, model: Wrapped, tokenizer: Any) -> None:
    exam = MultipleChoice(write("e.jsonl", ROWS), style)
    scorer = Scorer(model, tokenizer)
    result = sit(exam, scorer)
    right = 0
    for row, scored in zip(ROWS, result.rows, strict=True):
        per_byte = []
        for choice in row["choices"]:
            if style == "chat":
                ids, _ = scorer.chat.render((Message("user", row["question"]),), add_generation_prompt=True)
                answer = [*tokenizer.encode(choice), scorer.chat.stop_ids[0]]
            else:
                ids, answer = tokenizer.encode(row["question"] + "\n"), tokenizer.encode(choice)
            total = sum(reference_log_probs(model, ids + answer)[-len(answer) :])
            per_byte.append(total / len(choice.encode()))
        best = per_byte.index(max(per_byte))
        assert scored["id"] == row["id"]
        assert scored["choice_per_byte"] == best
        right += best == row["answer"]
    assert result.main == "accuracy_per_byte"
    assert result.metrics["accuracy_per_byte"] == pytest.approx(right / 3)
    assert result.metrics["chance"] == pytest.approx((1 / 4 + 1 / 2 + 1 / 3) / 3)
    assert result.metrics["n_examples"] == 3
    assert "baseline_accuracy" not in result.metrics
    assert result.metrics["accuracy_low"] <= result.metrics["accuracy"] <= result.metrics["accuracy_high"]
    assert len(result.prompts) == 3


def test_baseline_stands_beside(write: Any, tmp_path: Path, model: Wrapped, tokenizer: Any) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"baselines": {"exam": 0.3}}))
    path = write("e.jsonl", ROWS)
    exam = MultipleChoice(path, baseline=str(tmp_path / "summary.json"), baseline_key="baselines.exam")
    assert sit(exam, Scorer(model, tokenizer)).metrics["baseline_accuracy"] == 0.3
    with pytest.raises(ConfigError) as error:
        MultipleChoice(path, baseline=str(tmp_path / "summary.json"), baseline_key="baselines.typo")
    assert error.value.key == "baseline_key"
    for name, content in (("none.json", None), ("bad.json", b"{"), ("binary.json", b"\xff\xfe\x00")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError) as error:
            MultipleChoice(path, baseline=str(tmp_path / name))
        assert error.value.key == "baseline"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "file is empty"),
        (b"\n \n", "file is empty"),
        (b"\xff\xfe\x01", "not UTF-8"),
        (b"not json\n", "line 1: not valid JSON"),
        (b"[1]\n", "line 1: a JSON object is needed"),
        (b'{"question": "q", "choices": ["a", "b"]}\n', "line 1: `answer` is None"),
        (b'{"question": "q", "choices": ["a", "b"], "answer": 2}\n', "`answer` is 2; an index from 0 to 1"),
        (b'{"question": "q", "choices": ["a", "b"], "answer": "a"}\n', "an index from 0"),
        (b'{"question": "q", "choices": ["a"], "answer": 0}\n', "two or more"),
        (b'{"question": "q", "choices": "ab", "answer": 0}\n', "two or more"),
        (b'{"question": 1, "choices": ["a", "b"], "answer": 0}\n', "`question` is missing, or not text"),
    ],
)
def test_bad_files(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as error:
        MultipleChoice(str(path))
    assert error.value.key == "path"


def test_fingerprint_follows_the_content(write: Any) -> None:
    one, two = MultipleChoice(write("1.jsonl", ROWS)), MultipleChoice(write("2.jsonl", ROWS))
    other = MultipleChoice(write("3.jsonl", ROWS[:2]))
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()


def test_real_questions(shared_dir: Path, write: Any, model: Wrapped, tokenizer: Any) -> None:
    """COPA through the whole path: an untrained model is at chance, within four standard errors."""
    source = shared_dir / "data" / "small-evals" / "copa.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    path = write(
        "copa.jsonl", [{"question": r["query"], "choices": r["choices"], "answer": r["gold"]} for r in rows]
    )
    metrics = sit(MultipleChoice(path), Scorer(model, tokenizer)).metrics
    assert metrics["n_examples"] == 100
    assert abs(metrics["accuracy_per_byte"] - 0.5) < 4 * 0.05
