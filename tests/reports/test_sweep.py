from __future__ import annotations

import csv
import math

import pytest

from llm.reports import sweep

TRIALS: list[sweep.Trial] = [
    {"overrides": {"model.n_layers": n, "model.d_model": d, "seed": 1}, "objective": 3 - n / 10 - d / 1000,
     "status": "done", "directory": f"runs/{n}-{d}"}
    for n in (2, 10) for d in (64, 128)
]  # fmt: skip
TRIALS += [
    {
        "overrides": {"model.n_layers": 4, "model.d_model": 64, "seed": 1},
        "objective": None,
        "status": "failed",
    },
    {
        "overrides": ["model.n_layers=4", "+model.d_model=128", "seed=1"],
        "objective": math.nan,
        "status": "done",
    },
]


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ranked_and_unfinished_last(tmp_path) -> None:
    files = sweep.write(tmp_path, TRIALS, "val_loss", "minimize")
    table = rows(files.csv)
    assert [row["rank"] for row in table] == ["1", "2", "3", "4", "", ""]
    assert (table[0]["model.n_layers"], table[0]["model.d_model"]) == ("10", "128")
    assert float(table[0]["val_loss"]) == 3 - 1 - 0.128  # to the last bit
    assert {row["status"] for row in table[4:]} == {"failed", "done"}
    assert table[5]["model.d_model"] == "128"
    lines = files.markdown.read_text().splitlines()
    assert lines[0] == "| rank | n_layers | d_model | val_loss | status | directory |"  # seed never varies
    assert lines[2] == "| 1 | 10 | 128 | 1.8720 | done | runs/10-128 |"
    assert len(lines) == 2 + len(TRIALS)
    assert files.plot is not None
    assert files.plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = files.page.read_text()
    assert "4 of 6 trials have a result" in text
    assert "Best: n_layers 10, d_model 128, with val_loss 1.8720." in text
    assert text.count("<svg") == 1
    assert "#04" not in text


def test_larger_can_be_better(tmp_path) -> None:
    table = rows(sweep.write(tmp_path, TRIALS, "accuracy", "maximize").csv)
    assert (table[0]["model.n_layers"], table[0]["model.d_model"]) == ("2", "64")


def test_same_short_names_stay_long_and_text_is_escaped(tmp_path) -> None:
    trials: list[sweep.Trial] = [
        {"overrides": {"sft.lr": a, "dpo.lr": b, "model": name}, "objective": a + b, "status": "done"}
        for a, b, name in ((0.1, 0.2, "<b>$x$</b>"), (0.3, 0.4, "gpt2"))
    ]
    files = sweep.write(tmp_path, trials)
    assert "| rank | sft.lr | dpo.lr | model |" in files.markdown.read_text()
    assert "<b>$x$" not in files.page.read_text()


@pytest.mark.parametrize(
    "trials", [[], [{"overrides": {"a": 1}, "objective": None, "status": "failed"}], [{}]]
)
def test_nothing_finished(tmp_path, trials) -> None:
    files = sweep.write(tmp_path, trials)
    assert files.plot is None
    assert "No trial has a result yet." in files.page.read_text()


def test_values_sort_as_numbers() -> None:
    assert sorted(["10", "2", "llama", "1e-3", "gpt2"], key=sweep._natural) == [
        "1e-3",
        "2",
        "10",
        "gpt2",
        "llama",
    ]
