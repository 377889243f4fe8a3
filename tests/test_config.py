"""Composing, quoting, explaining mistakes, and building only what is allowed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from llm import config
from llm.types import ConfigError
from tests.conftest import REPOSITORY


def composed_value(text: str) -> object:
    """What Hydra and OmegaConf make of a quoted override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"prompt={config.quote(text)}")
    return OmegaConf.create({"prompt": override.value()}).prompt


@given(st.text().filter(lambda s: s != "???"))
def test_a_quoted_value_composes_back_to_itself(text: str) -> None:
    assert composed_value(text) == text


@given(st.text(alphabet="\\'\"${}a,()=#"))
def test_quoting_survives_the_characters_that_mean_something(text: str) -> None:
    assert composed_value(text) == text


def test_a_prompt_is_taken_as_typed() -> None:
    prompt = 'What\'s (up), "you"? a=b ${seed} [1, 2] #'
    assert config.compose(["task=generate", "checkpoint=runs/x", f"prompt={prompt}"]).prompt == prompt


def test_a_path_with_odd_characters_is_taken_as_typed() -> None:
    path = "/tmp/a=b, (c)/it's.txt"
    assert config.compose(["task=pretrain", f"data.path={path}"]).data.path == path


def test_choosing_a_sweep_asks_for_multirun_and_puts_flags_first() -> None:
    assert config.prepare(["sweeps=depth_heads_width", "seed=1"]) == [
        "--multirun",
        "sweeps=depth_heads_width",
        "seed=1",
    ]
    assert config.prepare(["seed=1", "--cfg", "job"]) == ["--cfg", "job", "seed=1"]
    assert "--multirun" not in config.prepare(["sweeps=depth_heads_width", "--cfg", "job"])
    assert "--multirun" not in config.prepare(["sweeps=null"])


@pytest.mark.parametrize(
    ("overrides", "key", "mend"),
    [
        (["task=pretrain", "modle.n_layers=2"], "modle.n_layers", "did you mean model.n_layers?"),
        (["task=pretrain", "model.n_layer=2"], "model.n_layer", "did you mean model.n_layers?"),
        (["task=pretrain", "n_layers=2"], "n_layers", "did you mean model.n_layers?"),
        (["task=pretrain", "model=gpt3"], "model", "did you mean gpt2?"),
        (["task=pretain"], "task", "did you mean pretrain?"),
        (["experiments=nope"], "experiments", "available: "),
        (["sweep=depth_heads_width"], "sweep", "did you mean sweeps?"),
        (
            ["optimizer=adamw"],
            "optimizer",
            "optimizer@stages.pretrain.optimizer=adamw or optimizer@stages.sft.",
        ),
        (["optimizer.lr=1"], "optimizer.lr", "stages.pretrain.optimizer.lr or stages.sft.optimizer.lr or"),
        (["task=curate", "model=gpt2"], "model", "this task has no such group"),
        (
            ["task=curate", "curation/mixture@curation.mixture=domains"],
            "curation/mixture@curation.mixture",
            "+curation/mixture@curation.mixture=domains adds it",
        ),
    ],
)
def test_a_misspelt_name_is_explained_in_one_line(overrides: list[str], key: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.compose(overrides)
    assert caught.value.key == key
    assert mend in caught.value.mend
    assert "\n" not in str(caught.value)


def test_build_refuses_what_is_not_allowed_wherever_it_stands() -> None:
    with pytest.raises(ConfigError) as caught:
        config.build({"a": [{"_target_": "os.system", "command": "true"}]})
    assert caught.value.key == "a.0._target_"
    with pytest.raises(ConfigError):
        config.build({"_target_": "llmx.anything"})


def test_build_names_the_place_of_a_components_own_refusal() -> None:
    trainer = {"_target_": "llm.training.trainer.Trainer", "max_steps": 1, "eval_every_steps": 1}
    with pytest.raises(ConfigError) as caught:
        config.build({"part": {**trainer, "batch_size": 3, "grad_accum_steps": 2}})
    assert caught.value.key == "part.batch_size"


def test_build_takes_plain_text_as_it_is() -> None:
    assert config.build({"text": "costs ${seed}"}) == {"text": "costs ${seed}"}


def test_a_mistake_is_located_by_parameter_name_and_value() -> None:
    cfg = OmegaConf.create({"data": {"path": "/nope"}, "other": {"path": "/else"}})
    found = config.locate(ConfigError("path", "/else", "no such file"), cfg)
    assert str(found) == "other.path=/else: no such file"


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["task=pretrain", "--cfg", "job"]])
def test_composing_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, runpy; sys.argv = ['main.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('main.py', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch', 'wandb', 'polars', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr


def test_help_lists_tasks_and_first_commands() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "main.py", "--help"], capture_output=True, text=True, cwd="/"
    )
    assert "task: align, " in done.stdout
    assert "reproduce=RUN_DIR" in done.stdout


def test_tab_completion_offers_the_options_of_a_group() -> None:
    done = subprocess.run(
        [sys.executable, "main.py", "-sc", "query=bash"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "COMP_LINE": "python main.py task=pre", "COMP_POINT": "23"},
    )
    assert "task=pretrain" in done.stdout, done.stderr
