from __future__ import annotations

import pytest

from llm.reports import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.81234, "0.8123"), (12.3456, "12.35"), (1.23e-05, "1.23e-05"), (None, "–"),
     (True, "True"), ("x", "x"), (0.0, "0.0000"), (float("nan"), "nan"), (12345.6, "12,346")],
)  # fmt: skip
def test_number(value, text: str) -> None:
    assert words.number(value) == text


def test_listing() -> None:
    assert [words.listing(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_seconds_and_short() -> None:
    assert [words.seconds(s) for s in (1.25, 59.4, 200, 7500)] == [
        "1.2 s",
        "59 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert [words.short(n) for n in (12, 4096, 124_439_808, 2.05e9)] == ["12", "4.1 k", "124 M", "2.05 B"]


def test_losses_that_rose_are_said() -> None:
    stages = [{"name": "pretrain", "before": 4.0, "after": 3.0}, {"name": "sft", "before": 3.0, "after": 3.2}]
    assert words.verdict({"stages": stages}, {}) == [
        "Held-out loss did not fall in sft; it fell in pretrain."
    ]
    nan = [{"name": "pretrain", "before": 4.0, "after": float("nan")}]
    assert words.verdict({"stages": nan}, {}) == ["Held-out loss did not fall in pretrain."]
    assert words.verdict({"stages": [{"name": "curate"}]}, {}) == []


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.1, 0.3, "more than"), (-0.3, -0.1, "did harm"), (-0.1, 0.1, "cannot be told")],
)
def test_a_preference_is_claimed_only_outside_the_interval(low, high, text) -> None:
    said = words.verdict(
        {"preferences": {"difference": {"value": (low + high) / 2, "low": low, "high": high}}}, {}
    )
    assert len(said) == 1
    assert text in said[0]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.3, 0.4, "above chance"), (0.2, 0.3, "not to be told from chance"), (0.1, 0.2, "below chance")],
)
def test_an_exam_against_chance(low, high, text) -> None:
    exam = {"models": [{"name": "m", "value": (low + high) / 2, "low": low, "high": high}], "chance": 0.25}
    assert text in words.verdict({"exam": exam}, {})[0]


def test_published() -> None:
    facts = {"published": {"val_loss": 1.88, "tolerance": 0.03, "source": "s", "perplexity": 5.0}}
    assert [met for _, met in words.published(facts, {"metrics": {"val_loss": 1.909}})] == [True]
    ((text, met),) = words.published(facts, {"metrics": {"val_loss": 1.92}})
    assert not met
    assert "outside the tolerance" in text
    assert words.published(facts, {"metrics": {"val_loss": "NaN"}}) == []


def test_the_table_for_a_terminal() -> None:
    facts = {
        "stages": [
            {"name": "curate", "seconds": 30.0, "reused": True},
            {"name": "pretrain", "before": 8.3, "after": 3.5, "seconds": 200.0},
        ],
        "exam": {"models": [{"name": "DPO", "value": 0.4, "low": 0.35, "high": 0.45}], "chance": 0.25},
        "preferences": {
            "models": [{"name": "DPO", "value": 0.16}],
            "difference": {"value": 0.12, "low": 0.1, "high": 0.14},
        },
        "commands": {"Chat": "python main.py task=serve"},
    }
    assert words.table(facts).replace("\N{NO-BREAK SPACE}", " ").splitlines() == [
        "stage     before  after           time",
        "curate                   30 s (reused)",
        "pretrain   8.300  3.500     3 min 20 s",
        "",
        "exam    accuracy  interval",
        "DPO       40.0 %  [35, 45]",
        "chance    25.0 %",
        "",
        "chosen over rejected  nats a token     interval",
        "DPO                        +0.1600",
        "difference                 +0.1200  [0.1, 0.14]",
    ]
    assert words.table({}) == ""
    assert words.next_steps(facts) == "Chat:\n    python main.py task=serve"
