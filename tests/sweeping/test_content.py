"""A sweep through the entry point: which cells are run, skipped, refused, and how they are ranked."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from llm.config import compose, resolved
from llm.runs.directory import fingerprint, read
from tests.conftest import Main
from tests.processes import INTERRUPT, forks
from tests.runs.test_tracker import the_run

TINY = (
    "tracker=none",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "trainer.batch_size=2",
    "trainer.max_steps=3",
    "trainer.eval_every_steps=3",
    "trainer.eval_batches=2",
)
SWEEP = ("sweeps=depth_heads_width", *TINY, "model.n_layers=1", "model.n_heads=2,3", "model.d_model=8,12")
LONGER = ("trainer.max_steps=70", "checkpointing.every_steps=20")
SMALL = ("task=pretrain", *TINY, "model.n_layers=1", "model.n_heads=2", "model.d_model=8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """A folder in which the preset's sweep was run; `err.txt` is what it said."""
    home = tmp_path_factory.mktemp("sweep")
    done = Main(home)(*SWEEP, text)
    (home / "err.txt").write_text(done.err)
    assert done.code == 0, done.err
    return home


def trials(sweep: Path) -> dict[str, Path]:
    """The directories of the trials that were started, by what they override."""
    found = {}
    for path in sweep.glob("*/result.json"):
        text = (path.parent / ".hydra/overrides.yaml").read_text()
        found[" ".join(re.findall(r'"model\.\w+=(\w+)"', text))] = path.parent
    return found


def ranking(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def started(run: Path) -> str:
    return json.loads((run / "provenance.json").read_text())["started_at"]


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/**/*") if path.is_file()}


def test_a_trial_is_named_by_its_content(home: Path) -> None:
    found = trials(home / "runs/sweeps/depth_heads_width")
    assert set(found) == {"1 2 8", "1 2 12", "1 3 12"}
    for shape, run in found.items():
        record = read(run)
        assert run.name == fingerprint(record.config)[:12]
        assert (run / "done.json").is_file()
        layers, heads, width = shape.split()
        path = record.config["data"]["path"]
        same = compose(
            ["sweeps=depth_heads_width", *reversed(TINY), f"model.d_model={width}", f"model.n_heads={heads}",
             f"model.n_layers={layers}", f"data.path={path}"]
        )  # fmt: skip
        assert fingerprint(resolved(same))[:12] == run.name  # however it is written


def test_impossible_cells_are_refused_before_the_first_one_starts(home: Path) -> None:
    said = (home / "err.txt").read_text().splitlines()
    refused = [line for line in said if line.startswith("refused ")]
    assert len(refused) == 1
    assert refused[0].startswith("refused model.n_heads=3 model.d_model=8: ")
    assert "is not divisible" in refused[0]
    counted = said.index("sweep runs/sweeps/depth_heads_width: 3 trials, 1 impossible cells refused")
    first_training = next(n for n, line in enumerate(said) if "training sequences" in line)
    assert max(map(said.index, refused)) < counted < first_training
    statuses = [row["status"] for row in ranking(home / "runs/sweeps/depth_heads_width")]
    assert statuses == ["done"] * 3 + ["impossible"]


def test_what_a_sweep_says_of_its_trials_and_at_its_end(home: Path) -> None:
    said = (home / "err.txt").read_text().splitlines()
    labels = [line for line in said if line.startswith("[trial] ")]
    shapes = [re.findall(r"model\.(?:n_heads|d_model)=(\d+)", label) for label in labels]
    assert sorted(map(sorted, shapes)) == [["12", "2"], ["12", "3"], ["2", "8"]]
    head = next(n for n, line in enumerate(said) if line.split()[:3] == ["rank", "n_heads", "d_model"])
    assert [line.split()[0] for line in said[head + 1 : head + 5]] == ["1", "2", "3", "–"]
    assert said[head + 5 :] == ["the report: runs/sweeps/depth_heads_width/report.html"]


def test_a_sweep_without_a_possible_cell_is_a_mistake(main: Main, text: str) -> None:
    done = main(*SWEEP, text, "model.n_heads=5")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: sweeps=depth_heads_width: none of its 2 cells can be")


def test_the_ranking(home: Path) -> None:
    sweep = home / "runs/sweeps/depth_heads_width"
    rows = [row for row in ranking(sweep) if row["rank"]]
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    losses = [float(row["val_loss"]) for row in rows]
    assert losses == sorted(losses)
    for row in rows:
        run = trials(sweep)[f"1 {row['model.n_heads']} {row['model.d_model']}"]
        assert result(run)["metrics"]["val_loss"] == float(row["val_loss"])
        assert Path(row["directory"]).name == run.name
        assert row["status"] == "done"
    assert (sweep / "ranking.md").read_text().startswith("| rank |")
    assert (sweep / "ranking.png").read_bytes().startswith(b"\x89PNG")
    assert "Ranking" in (sweep / "report.html").read_text()


def test_a_rerun_skips_what_is_done_and_runs_what_is_new(home: Path, text: str) -> None:
    sweep = home / "runs/sweeps/depth_heads_width"
    before = written(sweep)
    done = Main(home)(*SWEEP, text)
    assert done.code == 0, done.err
    assert written(sweep) == before
    assert "3 trials, 3 of them done before, 1 impossible cells refused" in done.err
    assert "training sequences" not in done.err
    assert "[trial]" not in done.err
    assert len([row for row in ranking(sweep) if row["rank"]]) == 3

    done = Main(home)(*SWEEP, text, "model.n_heads=1,2", "model.d_model=8")
    assert done.code == 0, done.err
    assert "2 trials, 1 of them done before, 0 impossible cells refused" in done.err
    assert {path: time for path, time in written(sweep).items() if path in before} == before
    assert set(trials(sweep)) == {"1 2 8", "1 2 12", "1 3 12", "1 1 8"}


def test_one_trial_can_be_reproduced(home: Path) -> None:
    run = trials(home / "runs/sweeps/depth_heads_width")["1 2 8"]
    done = Main(home)(f"reproduce={run}", "tracker=none", "allow_drift=true")
    assert done.code == 0, done.err
    assert "reproduced: bitwise equal" in done.err
    assert "config " not in done.err.partition("another machine")[0]  # the sweep is no drift of the config


def test_a_sweep_typed_on_the_command_line(main: Main, text: str) -> None:
    done = main("-m", *SMALL, text, "model.n_layers=1,2", "hydra.sweeper.max_batch_size=1")
    assert done.code == 0, done.err
    rows = ranking(main.home / "runs/sweeps/command_line")
    assert sorted(row["model.n_layers"] for row in rows) == ["1", "2"]
    assert {row["status"] for row in rows} == {"done"}
    done = main("-m", *SMALL, text, "name=mine", "optimizer.lr=0.002,2e-3")
    assert done.code == 0, done.err
    assert len(ranking(main.home / "runs/sweeps/mine")) == 1  # two ways to write a cell are one trial


def test_all_cells_are_judged_before_the_first_starts_also_in_batches(main: Main, text: str) -> None:
    done = main("-m", *SMALL, text, "model.n_heads=1,3", "hydra.sweeper.max_batch_size=1")
    assert done.code == 0, done.err
    assert done.err.index("refused model.n_heads=3") < done.err.index("training sequences")


def test_a_failing_trial_stops_no_other_and_is_run_again_on_request_only(main: Main, text: str) -> None:
    command = ("-m", *SMALL, text, "optimizer.lr=1e30,1e-3", "schedule=constant", "name=failing")
    sweep = main.home / "runs/sweeps/failing"
    done = main(*command)
    assert done.code == 1
    assert "DivergedError" in done.err
    rows = ranking(sweep)
    assert [(row["optimizer.lr"], row["status"]) for row in rows] == [("0.001", "done"), ("1e+30", "failed")]
    (failed,) = (run for run in trials_by_status(sweep, "failed"))
    assert "DivergedError" in result(failed)["error"]
    assert not (failed / "done.json").exists()

    before = started(failed)
    done = main(*command)
    assert done.code == 0, done.err
    assert "1 failed before; retry_failed=true runs them again" in done.err
    assert started(failed) == before

    done = main(*command, "retry_failed=true")
    assert done.code == 1
    assert "1 failed before, run again" in done.err
    assert len(json.loads((failed / "provenance.json").read_text())["earlier_sessions"]) == 1


def trials_by_status(sweep: Path, status: str) -> list[Path]:
    return [path.parent for path in sweep.glob("*/result.json") if result(path.parent)["status"] == status]


def test_an_interrupted_sweep_goes_on_in_its_trial(main: Main, text: str) -> None:
    command = ("-m", *SMALL, text, *LONGER, "seed=1,2", "name=cut")
    sweep = main.home / "runs/sweeps/cut"
    under_way = forks().start(*command, home=main.home)

    def some_steps() -> bool:
        return any(len(path.read_text().splitlines()) > 25 for path in sweep.glob("*/metrics.jsonl"))

    under_way.signal_after(INTERRUPT, 0, some_steps)
    assert under_way.wait() == 130, under_way.log.read_text()
    (cut,) = trials_by_status(sweep, "interrupted")
    assert sorted(row["status"] for row in ranking(sweep)) == ["interrupted", "todo"]
    done = main(*command)
    assert done.code == 0, done.err
    assert re.search(r"going on from step \d+ of 70", done.err)
    assert result(cut)["status"] == "done"
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(71))
    assert {row["status"] for row in ranking(sweep)} == {"done"}

    done = main(f"resume={cut}", "trainer.max_steps=72")  # a trial can also be gone on with alone
    assert done.code == 0, done.err
    assert "going on from step 70 of 72" in done.err


def test_a_sweep_of_what_does_not_exist_is_a_mistake(main: Main, text: str) -> None:
    done = main("-m", *SMALL, text, "model.n_layer=1,2")
    assert done.code == 2
    assert "error: model.n_layer=1" in done.err
    assert "did you mean model.n_layers?" in done.err


def test_trials_of_a_sweep_are_one_group_of_finished_wandb_runs(
    main: Main, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    done = main(*SWEEP, text, "model.n_heads=2", "tracker=wandb")
    assert done.code == 0, done.err
    found = trials(main.home / "runs/sweeps/depth_heads_width")
    assert set(found) == {"1 2 8", "1 2 12"}
    ids = set()
    for shape, run in found.items():
        records, _ = the_run(run)  # exactly one W&B run a trial
        kinds = [record.WhichOneof("record_type") for record in records]
        assert kinds.count("exit") == 1
        assert kinds[-1] == "exit"
        (info,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        assert info.run_group == "depth_heads_width"
        config = {item.key: json.loads(item.value_json) for item in info.config.update}
        assert config["model"]["d_model"] == int(shape.split()[-1])
        ids.add(info.run_id)
    assert len(ids) == 2
