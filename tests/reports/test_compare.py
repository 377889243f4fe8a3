from __future__ import annotations

import copy
import math

import pytest

from llm.reports import compare
from llm.reports.compare import bitwise, bitwise_runs
from llm.runs import directory
from llm.runs.directory import RunDirectory
from llm.runs.run import Run

LINES = [
    {
        "stage": "pretrain",
        "step": step,
        "seconds": 0.1 * step,
        "loss": 2.0 / (step + 3),
        "tokens_per_second": 7.0 * step,
    }
    for step in range(5)
] + [{"stage": "sft", "step": 0, "loss": float("nan"), "val_loss": 1.5}]


def changed(index: int, **values):
    lines = copy.deepcopy(LINES)
    lines[index].update(values)
    return lines


def test_equal_whatever_the_clock_says() -> None:
    other = [
        {**line, "seconds": 99.0, "tokens_per_second": 1.0, "mfu": 0.5, "memory_bytes": 1} for line in LINES
    ]
    verdict = bitwise(LINES, other)
    assert verdict.equal
    assert (verdict.n_steps, verdict.compared) == (6, 7)
    assert "bitwise equal at every one of 6 logged steps" in str(verdict)


def test_the_smallest_difference_is_found() -> None:
    was = LINES[3]["loss"]
    verdict = bitwise(LINES, changed(3, loss=math.nextafter(was, 1)))
    assert not verdict.equal
    assert (verdict.stage, verdict.step, verdict.metric) == ("pretrain", 3, "loss")
    assert verdict.saved == was
    assert verdict.difference == math.nextafter(was, 1) - was > 0
    assert "first difference at step 3 of pretrain: loss was" in str(verdict)
    assert repr(math.nextafter(was, 1)) in str(verdict)


@pytest.mark.parametrize(
    ("new", "stage", "step", "words"),
    [
        (LINES[:-1], "sft", 0, "only in the saved run"),
        ([*LINES, {"stage": "sft", "step": 1, "loss": 1.0}], "sft", 1, "only in the new run"),
        (changed(2, extra=1.0), "pretrain", 2, "extra was absent"),
        (changed(2, loss="x"), "pretrain", 2, "is 'x'"),
        (changed(5, loss=1.0), "sft", 0, "was nan, is 1.0"),
        (changed(0, step=-1), "pretrain", 0, "only in the saved run"),
    ],
)
def test_what_is_missing_differs(new, stage, step, words) -> None:
    verdict = bitwise(LINES, new)
    assert not verdict.equal
    assert (verdict.stage, verdict.step) == (stage, step)
    assert words in str(verdict)


def test_sign_of_zero_is_a_bit_and_an_int_is_its_float() -> None:
    assert not bitwise([{"step": 1, "loss": 0.0}], [{"step": 1, "loss": -0.0}]).equal
    assert bitwise([{"step": 1, "tokens": 3}], [{"step": 1, "tokens": 3.0}]).equal
    assert bitwise([{"step": 1, "loss": "NaN"}], [{"step": 1, "loss": float("nan")}]).equal
    assert not bitwise([{"step": 1, "n": 2**60}], [{"step": 1, "n": 2**60 + 1}]).equal


def test_lines_of_one_step_are_one() -> None:
    parts = [{"step": 1, "loss": 1.0}, {"step": 1, "val_loss": 2.0}]
    assert bitwise(parts, [{"step": 1, "val_loss": 2.0, "loss": 1.0}]).equal


def test_nothing_compared_is_not_called_equal() -> None:
    assert not bitwise([], []).equal
    assert not bitwise([{"step": 1, "seconds": 1.0}], [{"step": 1, "seconds": 1.0}]).equal
    assert "neither run logged" in str(bitwise([], []))


def make(folder, *, loss: float = 1.0, val: float = 2.0, sha: str = "aa", logged: bool = True, **config):
    whole = {"name": "x", "seed": 1, **config, "run_dir": str(folder)}
    claimed, run = RunDirectory.claim(whole, run_dir=folder), Run(folder)
    claimed.write_config(whole)
    if logged:
        for step in range(3):
            run.log({"loss": loss + step, "val_loss": loss}, step=step)
    run.summary.update(val_loss=val, weights_sha256=sha, tokens_per_second=float(hash(str(folder)) % 100))
    claimed.write_result("done", **run.result())
    claimed.release()
    return directory.read(folder)


def test_whole_runs(tmp_path) -> None:
    saved = make(tmp_path / "a")
    assert bitwise_runs(saved, make(tmp_path / "b")).equal
    assert bitwise_runs(saved, make(tmp_path / "c", loss=1.5)).step == 0
    finals = bitwise_runs(saved, make(tmp_path / "d", val=2.5))
    assert (finals.step, finals.metric, finals.difference) == (None, "val_loss", 0.5)
    assert "the final results: val_loss was 2.0" in str(finals)
    weights = bitwise_runs(saved, make(tmp_path / "e", sha="bb"))
    assert (weights.metric, weights.saved, weights.new) == ("weights_sha256", "aa", "bb")
    silent = make(tmp_path / "f", logged=False)
    assert bitwise_runs(silent, make(tmp_path / "g", logged=False)).equal
    assert "in the final results" in str(bitwise_runs(silent, silent))
    assert not bitwise_runs(silent, make(tmp_path / "h", logged=False, sha="cc")).equal


def test_several_runs_in_one_table(tmp_path) -> None:
    records = [
        make(tmp_path / "one" / "r", lr=0.1),
        make(tmp_path / "two" / "r", lr=0.2, val=3.0, note="a|b"),
    ]
    path = compare.runs(records, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert text[0].startswith("| run | status | val_loss |")
    assert text[0].endswith("| lr | note |")
    assert "| one/r | done | 2.000 |" in text[2]
    assert text[2].endswith("| 0.1 | – |")
    assert text[3].endswith("| 0.2 | a\\|b |")
    assert path.read_text().count("<svg") == 1
