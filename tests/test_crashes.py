"""Killed at any moment, a run goes on to the same weights: SIGKILL, Ctrl-C and SIGTERM from outside.

The killed commands are forks of a process that has imported torch (see `tests.processes`), so that the kills
fall into the run and not into python's start; ``pytest -m slow tests/test_crashes.py`` takes the real
``python main.py`` for each, start included.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Main
from tests.processes import INTERRUPT, KILL, TERMINATE, Command, Spawned, Starter, forks

N_KILLS, IN_A_CHECKPOINT = 10, (2, 7)
"""How many runs are killed, and which of them while a checkpoint is being written."""

TINY = (
    "task=pretrain",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "tracker=none",
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.dropout=0.1",
    "schedule.warmup_steps=10",
    "trainer.batch_size=4",
    "trainer.eval_every_steps=20",
    "trainer.eval_batches=4",
    "checkpointing.every_steps=7",
)


@dataclass
class Kitchen:
    """One uninterrupted run, and how further ones are started."""

    home: Path
    starter: Starter
    command: tuple[str, ...]
    steps: int
    reference: Path = field(init=False)
    wall_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.reference = self.home / "reference"
        under_way = self.begin(self.reference)
        assert under_way.wait() == 0, under_way.log.read_text()
        self.wall_seconds = time.monotonic() - under_way.began

    def begin(self, run: Path) -> Command:
        return self.starter.start(*self.command, f"run_dir={run}", home=self.home)

    def resume(self, run: Path) -> Command:
        """`resume=RUN`; a run that was killed before it wrote its config is the same command again."""
        if (run / "config.yaml").is_file():
            return self.starter.start(f"resume={run}", home=self.home)
        return self.begin(run)


def kitchen_of(starter: Starter, home: Path, steps: int) -> Kitchen:
    text = home / "text.txt"
    text.write_text("".join(f"{n} times {n} is {n * n}; to be, or not to be.\n" for n in range(200)))
    return Kitchen(home, starter, (*TINY, f"data.path={text}", f"trainer.max_steps={steps}"), steps)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return kitchen_of(forks(), tmp_path_factory.mktemp("kitchen"), 100)


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def logged(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run less what the clock decides."""
    clock = ("seconds", "tokens_per_second", "memory_bytes")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


def assert_as_uninterrupted(run: Path, kitchen: Kitchen) -> None:
    assert result(run)["status"] == "done"
    assert (run / "done.json").is_file()
    assert result(run)["weights_sha256"] == result(kitchen.reference)["weights_sha256"]
    assert [line["step"] for line in logged(run)] == list(range(kitchen.steps + 1))
    assert logged(run) == logged(kitchen.reference)
    assert not list((run / "checkpoints").glob(".tmp-*"))


def being_written(run: Path) -> list[Path]:
    """Checkpoints of which a part is on the disk under the hidden name."""
    return list((run / "checkpoints").glob(".tmp-step_*"))


def kill_at(kitchen: Kitchen, name: str, share: float, *, in_checkpoint: bool) -> tuple[Path, float, bool]:
    """Starts a run and kills it after `share` of its wall time; where, when, and was a checkpoint torn.

    A run that is faster than the uninterrupted one was, or whose checkpoint was whole before the kill came,
    is not the kill asked for: another one is started.
    """
    seconds = share * kitchen.wall_seconds
    for attempt in range(20):
        place = kitchen.home / f"{name}-{attempt}"
        under_way = kitchen.begin(place)
        under_way.signal_after(KILL, seconds, lambda at=place: bool(not in_checkpoint or being_written(at)))
        passed = time.monotonic() - under_way.began
        code = under_way.wait()
        torn = bool(being_written(place))
        if code == -KILL and (torn or not in_checkpoint):
            return place, passed, torn
        assert code in (0, -KILL), under_way.log.read_text()
        seconds *= 0.9
    raise AssertionError("no kill hit the run")


def kill_and_resume(kitchen: Kitchen, n_kills: int) -> tuple[int, int]:
    """Kills runs, uniformly over the wall time, and resumes each; how many are equal, how many were torn."""
    chance = random.Random(1337)
    n_equal = n_torn = 0
    for number in range(n_kills):
        share = (number + chance.random()) / n_kills
        wanted = number in IN_A_CHECKPOINT
        run, seconds, torn = kill_at(kitchen, f"killed-{number}", share, in_checkpoint=wanted)
        reached = len(logged_whole(run))
        again = kitchen.resume(run)
        assert again.wait() == 0, again.log.read_text()
        assert_as_uninterrupted(run, kitchen)
        n_equal, n_torn = n_equal + 1, n_torn + torn
        print(f"kill {number}: {seconds:.2f} s of {kitchen.wall_seconds:.2f}, {reached} lines of metrics"
              f"{', inside a checkpoint write' if torn else ''}; resumed: equal")  # fmt: skip
    return n_equal, n_torn


def logged_whole(run: Path) -> list[str]:
    path = run / "metrics.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def test_kills_at_any_moment(kitchen: Kitchen) -> None:
    n_equal, n_torn = kill_and_resume(kitchen, N_KILLS)
    assert n_equal == N_KILLS
    assert n_torn >= 2


@pytest.mark.slow
def test_kills_of_whole_processes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("minutes of starting python: pytest -m slow")
    kitchen = kitchen_of(Spawned(), tmp_path, 400)
    n_equal, n_torn = kill_and_resume(kitchen, N_KILLS)
    assert n_equal == N_KILLS
    assert n_torn >= 2


def test_killed_again_and_again(kitchen: Kitchen) -> None:
    run = kitchen.home / "again-and-again"
    under_way = kitchen.begin(run)
    for steps in (30, 65):
        under_way.signal_after(KILL, 0, lambda steps=steps: len(logged_whole(run)) >= steps)
        assert under_way.wait() == -KILL
        under_way = kitchen.resume(run)
    assert under_way.wait() == 0, under_way.log.read_text()
    assert_as_uninterrupted(run, kitchen)


def test_a_checkpoint_torn_on_the_disk_is_passed_over(kitchen: Kitchen) -> None:
    run = kitchen.home / "torn"
    under_way = kitchen.begin(run)
    under_way.signal_after(KILL, 0, lambda: len(list((run / "checkpoints").glob("step_*"))) >= 2)
    assert under_way.wait() == -KILL
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    again = kitchen.resume(run)
    assert again.wait() == 0, again.log.read_text()
    assert "passing over this checkpoint" in again.log.read_text()
    assert_as_uninterrupted(run, kitchen)


@pytest.mark.parametrize("number", [INTERRUPT, TERMINATE])
def test_a_polite_signal_leaves_a_whole_checkpoint(kitchen: Kitchen, number: int) -> None:
    run = kitchen.home / f"signal-{int(number)}"
    under_way = kitchen.begin(run)
    under_way.signal_after(number, 0, lambda: len(logged_whole(run)) > kitchen.steps // 3)
    assert under_way.wait() == 130, under_way.log.read_text()
    assert "Traceback" not in under_way.log.read_text()
    assert result(run)["status"] == "interrupted"
    assert not (run / "done.json").exists()
    reached = json.loads(logged_whole(run)[-1])["step"]
    assert (run / "checkpoints" / "last").resolve().name == f"step_{reached:06d}"  # not a step is lost
    assert kitchen.steps // 3 <= reached < kitchen.steps
    again = kitchen.resume(run)
    assert again.wait() == 0, again.log.read_text()
    assert_as_uninterrupted(run, kitchen)


def test_a_killed_and_resumed_run_reproduces_bit_by_bit(kitchen: Kitchen, main: Main) -> None:
    run = kitchen.home / "again-and-again"
    if not run.is_dir():
        test_killed_again_and_again(kitchen)
    done = main(f"reproduce={run}", "tracker=none", "allow_drift=true")
    assert done.code == 0, done.err
    assert "reproduced: " in done.err
    assert "config " not in done.err.partition("another machine")[0]  # resuming is no drift of the config
    (new,) = (main.home / "runs").glob("*/*")
    assert new != run
    assert logged(new) == logged(kitchen.reference)
    assert result(new)["weights_sha256"] == result(kitchen.reference)["weights_sha256"]


def test_a_run_that_is_still_going_on_is_not_resumed(kitchen: Kitchen, main: Main) -> None:
    run = kitchen.home / "busy"
    under_way = kitchen.begin(run)
    under_way.signal_after(19, 0, lambda: len(logged_whole(run)) > 5)  # SIGSTOP: it cannot end meanwhile
    try:
        done = main(f"resume={run}")
    finally:
        under_way.signal_after(18, 0)
    assert done.code == 2
    assert f"error: resume={run}: another process is running this run" in done.err
    assert under_way.wait() == 0
    assert_as_uninterrupted(run, kitchen)
