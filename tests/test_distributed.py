"""Two gloo processes under torchrun against one, through the entry point: the same curve, one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm.tasks import reproduce
from tests.conftest import Main

STEPS, MORE = 20, 24
KINDS = ("ddp", "fsdp2", "fairscale_oss")

TINY = (
    "task=pretrain",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "tracker=none",
    "model.d_model=16",
    "model.n_layers=2",
    "model.n_heads=2",
    "schedule=constant",
    "trainer.batch_size=8",
    "trainer.grad_accum_steps=2",
    "trainer.eval_every_steps=5",
    "trainer.eval_batches=3",
)


def lines(run: Path) -> dict[int, dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len({line["step"] for line in found}) == len(found)
    return {line["step"]: line for line in found}


def assert_same_curve(one: Path, other: Path, steps: int) -> None:
    expected, found = lines(one), lines(other)
    assert list(found) == list(range(steps + 1))
    for step, line in found.items():
        for metric in ("loss", "val_loss", "grad_norm"):
            assert line.get(metric) == pytest.approx(expected[step].get(metric), abs=1e-4), (step, metric)
        for metric in ("tokens", "lr"):
            assert line.get(metric) == expected[step].get(metric), (step, metric)
    assert found[steps]["loss"] < found[1]["loss"] - 0.1  # something was learned


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one process, and a sweep over the parallelisms under torchrun."""
    home = tmp_path_factory.mktemp("distributed")
    text = home / "text.txt"
    text.write_text("".join(f"{n} times {n} is {n * n}; to be, or not to be.\n" for n in range(200)))
    command = (*TINY, f"data.path={text}")
    done = Main(home)(*command, f"trainer.max_steps={MORE}", "run_dir=one")
    assert done.code == 0, done.err
    kinds = f"parallelism={','.join(KINDS)}"
    done = Main(home).torchrun(2, "-m", *command, f"trainer.max_steps={STEPS}", kinds, "name=kinds")
    assert done.code == 0, done.err
    return home


def trial(home: Path, kind: str) -> Path:
    """The run of one kind; there are as many directories as kinds, and no more."""
    runs = [path.parent for path in home.glob("runs/**/result.json")]
    assert len(runs) == len(KINDS)
    (found,) = (run for run in runs if f"parallelism={kind}" in (run / ".hydra/overrides.yaml").read_text())
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_of_one_process(home: Path, kind: str) -> None:
    run = trial(home, kind)
    assert_same_curve(home / "one", run, STEPS)
    assert json.loads((run / "result.json").read_text())["status"] == "done"
    assert json.loads((run / "provenance.json").read_text())["world_size"] == 2
    assert (run / "done.json").is_file()


@pytest.mark.distributed
def test_reproducing_starts_as_many_processes_again(home: Path) -> None:
    run = trial(home, "fsdp2")
    done = Main(home).process(f"reproduce={run}", "tracker=none", "allow_drift=true", "run_dir=again")
    assert done.code == 0, done.err
    assert "that run had 2 processes: starting as many" in done.err
    assert "reproduced: bitwise equal" in done.err
    assert json.loads((home / "again" / "provenance.json").read_text())["world_size"] == 2
    assert {p.name for p in home.iterdir() if (p / "config.yaml").is_file()} == {"one", "again"}


@pytest.mark.distributed
def test_resuming_goes_on_as_one_process_would(home: Path) -> None:
    run = trial(home, "ddp")
    done = Main(home).torchrun(2, f"resume={run}", f"trainer.max_steps={MORE}")
    assert done.code == 0, done.err
    assert f"going on from step {STEPS} of {MORE}" in done.err
    assert_same_curve(home / "one", trial(home, "ddp"), MORE)


@pytest.mark.distributed
@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_relaunch_ends_with_the_code_of_its_processes(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").write_text(
        "import os, sys\n"
        "assert os.environ['WORLD_SIZE'] == '2' and sys.argv[1:] == ['reproduce=x']\n"
        f"sys.exit({code} if os.environ['RANK'] == '0' else 0)\n"
    )
    monkeypatch.setattr(reproduce, "REPOSITORY", tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py", "reproduce=x"])
    assert reproduce._relaunch(2) == code
