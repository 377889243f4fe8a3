from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from llm.runs.directory import read_metrics
from llm.runs.progress import Display, Progress, duration
from llm.runs.run import Run


class Recorder:
    def __init__(self) -> None:
        self.points: list[tuple] = []
        self.tables: list[tuple] = []

    def log(self, metrics, *, step, stage) -> None:
        self.points.append((stage, step, dict(metrics)))

    def log_table(self, name, columns, rows, *, stage) -> None:
        self.tables.append((stage, name, list(columns), [list(row) for row in rows]))

    def finish(self, summary, *, exit_code) -> None:
        pass


def steps(path, stage=None) -> list[int]:
    return [line["step"] for line in read_metrics(path / "metrics.jsonl") if line["stage"] == stage]


def test_each_step_is_on_disk_at_once_and_exact(tmp_path) -> None:
    run = Run(tmp_path, seed=3, name="demo")
    values = [0.1, 1 / 3, 1e-300, 2**53 + 1.0, float("nan"), float("-inf")]
    for step, value in enumerate(values):
        run.log({"loss": value, "tokens": 10 * step}, step=step)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == step + 1
        record = json.loads(lines[-1], parse_constant=lambda c: pytest.fail(f"not JSON: {c}"))
        assert list(record) == ["stage", "step", "seconds", "loss", "tokens"]
    back = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert [repr(b) for b in back] == [repr(v) for v in values]


def test_rewind_drops_later_steps_and_a_torn_line(tmp_path) -> None:
    run = Run(tmp_path)
    for step in range(1, 6):
        run.log({"loss": float(step)}, step=step)
    run.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": null, "step": 6, "lo')
    again = Run(tmp_path)
    again.rewind(3)
    again.log({"loss": 4.5}, step=4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 4


def test_a_torn_line_is_not_glued_to_the_next(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": null, "step": 1}\n{"stage": nu')
    Run(tmp_path).log({"loss": 1.0}, step=2)
    assert steps(tmp_path) == [1, 2]


def test_stages_are_mirrored(tmp_path) -> None:
    tracker = Recorder()
    run = Run(tmp_path / "run", tracker=tracker)
    stage = run.at_stage("pretrain", tmp_path / "stage")
    stage.log({"loss": 2.0}, step=1)
    stage.log_table("samples", ["prompt", "text"], [["a", "b"]])
    stage.summary.update(val_loss=1.5, n_params=7, weights_sha256="ab")
    run.stages["pretrain"] = {"key": "k", "reused": False}
    run.summary["n_params"] = 7
    assert (tmp_path / "stage" / "metrics.jsonl").read_text() == (
        tmp_path / "run" / "metrics.jsonl"
    ).read_text()
    assert tracker.points == [("pretrain", 1, {"loss": 2.0})]
    assert tracker.tables == [("pretrain", "samples", ["prompt", "text"], [["a", "b"]])]
    assert (tmp_path / "stage/tables/samples.json").is_file()
    assert (tmp_path / "run/tables/pretrain/samples.json").is_file()
    result = run.result()
    assert result["metrics"] == {"pretrain": {"val_loss": 1.5}}
    assert result["stages"] == {
        "pretrain": {"n_params": 7, "weights_sha256": "ab", "key": "k", "reused": False}
    }
    assert result["n_params"] == 7


def test_a_resumed_stage_leaves_the_whole_curve_in_a_new_run(tmp_path) -> None:
    first = Run(tmp_path / "one").at_stage("sft", tmp_path / "partial")
    for step in (1, 2, 3):
        first.log({"loss": step / 3}, step=step)
    first.close()
    run = Run(tmp_path / "two")
    run.at_stage("pretrain", tmp_path / "other").log({"loss": 9.0}, step=1)
    stage = run.at_stage("sft", tmp_path / "partial")
    stage.rewind(2)
    stage.log({"loss": 0.9}, step=3)
    assert steps(tmp_path / "two", "sft") == [1, 2, 3] == steps(tmp_path / "partial", "sft")
    assert steps(tmp_path / "two", "pretrain") == [1]
    stage.rewind(1)
    assert steps(tmp_path / "two", "sft") == [1] == steps(tmp_path / "partial", "sft")
    assert steps(tmp_path / "two", "pretrain") == [1]


def test_a_reused_stage_brings_its_metrics(tmp_path) -> None:
    built = Run(tmp_path / "one").at_stage("pretrain", tmp_path / "artifact")
    built.log({"loss": 1 / 3}, step=1)
    before = (tmp_path / "artifact" / "metrics.jsonl").read_bytes()
    tracker = Recorder()
    run = Run(tmp_path / "two", tracker=tracker)
    run.at_stage("pretrain", tmp_path / "artifact", reused=True)
    assert steps(tmp_path / "two", "pretrain") == [1]
    assert tracker.points == [("pretrain", 1, {"loss": 1 / 3})]
    assert (tmp_path / "artifact" / "metrics.jsonl").read_bytes() == before


def test_other_ranks_are_silent(tmp_path, capsys) -> None:
    tracker = Recorder()
    run = Run(tmp_path / "r", is_main=False, tracker=tracker)
    run.log({"loss": 1.0}, step=1)
    run.log_table("t", ["a"], [[1]])
    run.rewind(0)
    run.say("hello")
    with run.progress("train", 10) as progress:
        progress.advance(10)
    run.at_stage("s", tmp_path / "s").log({"loss": 1.0}, step=1)
    assert list(tmp_path.iterdir()) == []
    assert tracker.points == tracker.tables == []
    assert capsys.readouterr() == ("", "")


def test_rank_comes_from_the_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    Run(tmp_path / "r").log({"loss": 1.0}, step=1)
    assert not (tmp_path / "r").exists()


def test_words_are_printed_as_they_are(tmp_path, capsys) -> None:
    Run(tmp_path).say("path [bold]/runs/x[/bold] :smile: " + "long " * 60)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "path [bold]/runs/x[/bold] :smile: " + "long " * 60 + "\n"


def test_lines_when_not_a_terminal() -> None:
    stream = io.StringIO()
    display = Display(console=Console(file=stream, width=200), every_seconds=0.05)
    with Progress(display, "train", 4, "steps") as progress:
        for _ in range(4):
            time.sleep(0.03)
            progress.advance(loss=2.123456)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("train: 2/4 steps, ")
    assert lines[0].endswith("left, loss 2.123")
    assert "steps/s" in lines[0]
    assert lines[-1].startswith("train: 4 steps in 0 s")
    assert len(lines) == 3


def test_short_work_says_nothing_in_a_log() -> None:
    stream = io.StringIO()
    with Progress(Display(console=Console(file=stream)), "quick", None, "documents") as progress:
        progress.advance(100)
    assert stream.getvalue() == ""


def test_work_whose_parts_nobody_counts() -> None:
    stream = io.StringIO()
    display = Display(console=Console(file=stream, force_terminal=True, width=160))
    with Progress(display, "decide", None, "shards"):
        pass
    assert stream.getvalue().splitlines()[-1].endswith("decide: 0 s")


def test_bars_on_a_terminal_nest_and_leave_a_line() -> None:
    stream = io.StringIO()
    display = Display(console=Console(file=stream, force_terminal=True, width=160))
    with (
        Progress(display, "outer", 2, "files") as outer,
        Progress(display, "inner [x]", None, "rows") as inner,
    ):
        inner.advance(5)
        outer.advance(1, loss=1.5)
        display.say("a word")
        time.sleep(0.15)
    text = stream.getvalue()
    for part in ("1/2 files", "left", "loss 1.5", "inner [x]", "a word", "outer: 1 files in"):
        assert part in text, part


def test_seconds_go_on_after_a_resume(tmp_path) -> None:
    run = Run(tmp_path, elapsed_seconds=100.0)
    run.log({}, step=1)
    assert 100 <= read_metrics(tmp_path / "metrics.jsonl")[0]["seconds"] < 110


@pytest.mark.parametrize(("seconds", "text"), [(9.4, "9 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
