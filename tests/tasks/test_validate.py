"""task=validate: every experiment and sweep is held against the code, and all mistakes are said at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm import config
from llm.tasks import validate
from tests.conftest import REPOSITORY, Main


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all configs, which the entry point then uses, to be broken."""
    place = tmp_path / "repository"
    for name in ("conf", "experiments", "sweeps"):
        shutil.copytree(REPOSITORY / name, place / name, symlinks=True)
    monkeypatch.setattr(config, "CONF", place / "conf")
    monkeypatch.setattr(validate, "REPOSITORY", place)
    return place


def errors(done: Main.Done) -> list[str]:
    return [line.removeprefix("error: ") for line in done.err.splitlines() if line.startswith("error: ")]


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["# @package _global_", *lines]) + "\n")


def test_everything_shipped_is_right(main: Main) -> None:
    done = main("task=validate", "tracker=none", "run_dir=run")
    assert done.code == 0, done.err
    table = json.loads((main.home / "run/tables/validated.json").read_text())
    checked = {row[0]: row[1] for row in table["rows"]}
    shipped = {f"task={path.stem}" for path in (REPOSITORY / "conf/task").glob("*.yaml")}
    shipped |= {f"experiments={path.stem}" for path in (REPOSITORY / "experiments").glob("*.yaml")}
    shipped |= {f"sweeps={path.stem}" for path in (REPOSITORY / "sweeps").glob("*.yaml")}
    assert set(checked) == shipped
    assert set(checked.values()) == {0}


def test_all_mistakes_of_all_configs_are_said_at_once(main: Main, configs: Path) -> None:
    write(configs / "experiments/a_type.yaml", "defaults:", "  - override /task: pretrain",
          "optimizer:", "  lr: fast", "trainer:", "  max_steps: -1")  # fmt: skip
    write(configs / "experiments/b_key.yaml", "defaults:", "  - override /task: pretrain",
          "model:", "  n_layer: 3")  # fmt: skip
    write(configs / "experiments/c_target.yaml", "defaults:", "  - override /task: pretrain",
          "callbacks:", "  x:", "    _target_: os.system", "    command: 'true'")  # fmt: skip
    write(configs / "experiments/d_option.yaml", "defaults:", "  - override /task: pretrain",
          "  - override /model: gtp2")  # fmt: skip
    write(configs / "experiments/e_required.yaml", "defaults:", "  - override /task: generate")
    write(configs / "experiments/f_gone.yaml", "defaults:", "  - override /task: pretrain",
          "callbacks:", "  x:", "    _target_: llm.training.callbacks.NoSuchThing")  # fmt: skip
    write(configs / "sweeps/g_impossible.yaml", "defaults:", "  - override /task: pretrain",
          "hydra:", "  sweeper:", "    params:", "      model.n_heads: 5,7")  # fmt: skip
    write(configs / "sweeps/h_some.yaml", "defaults:", "  - override /task: pretrain",
          "hydra:", "  sweeper:", "    params:", "      model.n_heads: 4,5")  # fmt: skip
    only = "experiments=([a-f]_|nanogpt_shakespeare_char_cpu)|sweeps=[gh]_"
    done = main("task=validate", "tracker=none", f"only={only}", "run_dir=run")
    assert done.code == 2
    found = errors(done)
    for part in (
        "experiments=a_type: optimizer.lr=fast",
        "experiments=a_type: trainer.max_steps=-1",
        "experiments=b_key: model.n_layer=3: no such key; did you mean model.n_layers?",
        "experiments=c_target: callbacks.x._target_=os.system: may not be called",
        "experiments=d_option: model=gtp2",
        "experiments=e_required: checkpoint=???: which model?",
        "experiments=f_gone: callbacks.x._target_=llm.training.callbacks.NoSuchThing: cannot be imported",
        "sweeps=g_impossible: model.n_heads=5",
    ):
        assert any(line.startswith(part) for line in found), (part, found)
    assert not any("h_some" in line for line in found)  # a sweep may have impossible cells, if not all are
    assert "Traceback" not in done.err
    said = done.err
    assert "ok  experiments=nanogpt_shakespeare_char_cpu" in said
    assert "WRONG  experiments=a_type" in said
    assert json.loads((main.home / "run/result.json").read_text())["status"] == "failed"


def test_the_same_check_precedes_a_run(main: Main, configs: Path) -> None:
    write(configs / "experiments/wrong.yaml", "defaults:", "  - override /task: pretrain",
          "optimizer:", "  lr: fast", "trainer:", "  max_steps: -1")  # fmt: skip
    done = main("experiments=wrong", "tracker=none")
    assert done.code == 2
    assert len(errors(done)) == 2
    assert not (main.home / "runs").exists()


@pytest.mark.parametrize(
    ("only", "part"), [("nothing_like_it", "finds none"), ("(", "is not a regular expression")]
)
def test_checking_nothing_is_a_mistake(main: Main, only: str, part: str) -> None:
    done = main("task=validate", "tracker=none", f"only={only}")
    assert done.code == 2
    assert len(errors(done)) == 1
    assert errors(done)[0].startswith(f"only={only}: {part}")
