"""Going on with runs by `resume=`, and whose word counts: what only the command line may say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm import config
from llm.runs.directory import read
from tests.conftest import Main

TINY = (
    "task=pretrain",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "tracker=none",
    "model.d_model=8",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.dropout=0.1",
    "schedule=constant",
    "trainer.batch_size=2",
    "trainer.eval_every_steps=4",
    "trainer.eval_batches=2",
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text, (of) mine.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 40)
    return f"data.path={path}"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """A run of 4 steps."""
    home = tmp_path_factory.mktemp("short")
    done = Main(home)(*TINY, text, "trainer.max_steps=4", "run_dir=run")
    assert done.code == 0, done.err
    return home / "run"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, text: str) -> dict[str, Any]:
    """The result of a run of 8 steps."""
    home = tmp_path_factory.mktemp("long")
    done = Main(home)(*TINY, text, "trainer.max_steps=8", "run_dir=run")
    assert done.code == 0, done.err
    return read(home / "run").result


@pytest.fixture
def copy(short: Path, tmp_path: Path) -> Path:
    """The short run somewhere else, to be changed."""
    return Path(shutil.copytree(short, tmp_path / "copy", symlinks=True))


def assert_mistake(done: Main.Done, *parts: str) -> None:
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == 2, done.err
    assert len(errors) == 1, done.err
    for part in parts:
        assert part in errors[0], errors[0]


# ----------------------------------------------------------------------------- resume


def test_a_run_goes_on_for_longer_in_its_own_directory(main: Main, copy: Path, long: dict[str, Any]) -> None:
    done = main(f"resume={copy}", "trainer.max_steps=8")
    assert done.code == 0, done.err
    assert "going on from step 4 of 8" in done.err
    record = read(copy)
    assert record.status == "done"
    assert record.result["weights_sha256"] == long["weights_sha256"]
    assert [line["step"] for line in record.metrics] == list(range(9))
    assert record.config["trainer"]["max_steps"] == 8
    (before,) = copy.glob("config.before-resume-*.yaml")
    assert "max_steps: 4" in before.read_text()
    assert len(record.provenance["earlier_sessions"]) == 1
    assert not (main.home / "runs").exists()
    assert main(f"resume={copy}", "trainer.max_steps=9").code == 0  # and again
    assert [line["step"] for line in read(copy).metrics] == list(range(10))


def test_the_whole_command_may_be_typed_again(
    main: Main, copy: Path, text: str, long: dict[str, Any]
) -> None:
    done = main(*TINY, text, "trainer.max_steps=8", f"resume={copy}")
    assert done.code == 0, done.err
    assert read(copy).result["weights_sha256"] == long["weights_sha256"]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("schedule=cosine", ["schedule.", "give resume= alone"]),
        ("model.n_layers=2", ["another architecture"]),
        ("seed=7", ["seed=7", "1337"]),
        ("task=evaluate", ["task"]),
        ("trainer.max_steps=3", ["trainer.max_steps=3", "has made 4 steps already"]),
        ("data.path=missing.txt", ["data.path=missing.txt", "no such file"]),
        ("optimizer.lr=inf", ["optimizer.lr=inf", "finite"]),
    ],
)
def test_another_config_is_refused_and_nothing_is_lost(
    main: Main, copy: Path, override: str, parts: list[str]
) -> None:
    before = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    done = main(f"resume={copy}", "trainer.max_steps=8", override)
    assert done.code == 2, done.err
    assert {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    if override != "task=evaluate":
        assert_mistake(done, *parts)


def test_a_run_whose_checkpoints_are_all_torn_is_not_begun_anew(main: Main, copy: Path) -> None:
    for weights in (copy / "checkpoints").glob("step_*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    before = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.warns(RuntimeWarning, match="passing over"):
        assert_mistake(main(f"resume={copy}", "trainer.max_steps=8"), "every checkpoint in it is torn")
    assert {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_the_tracker_may_change(main: Main, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    done = main(f"resume={copy}", "tracker=wandb", "tracker.project=mine", "trainer.max_steps=5")
    assert done.code == 0, done.err
    assert read(copy).config["tracker"]["_target_"] == "llm.runs.tracker.WandbTracker"
    assert read(copy).config["tracker"]["project"] == "mine"


def test_a_run_killed_before_it_wrote_its_command_down_goes_on(
    main: Main, copy: Path, long: dict[str, Any]
) -> None:
    shutil.rmtree(copy / ".hydra")
    for name in ("result.json", "done.json", "provenance.json"):
        (copy / name).unlink()
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("max_steps: 4", "max_steps: 8"))
    done = main(f"resume={copy}", "tracker=none")
    assert done.code == 0, done.err
    assert read(copy).result["weights_sha256"] == long["weights_sha256"]


@pytest.mark.parametrize("value", [-1, 2**63, 10**20])
def test_a_seed_out_of_range(main: Main, text: str, value: int) -> None:
    assert_mistake(main(*TINY, text, f"seed={value}"), f"seed={value}: must be from 0 to 2^63 - 1")


@pytest.mark.parametrize(("value", "shown"), [("true", "True"), ("1.5", "1.5"), ("x", "x")])
def test_a_seed_is_a_whole_number(main: Main, text: str, value: str, shown: str) -> None:
    assert_mistake(main(*TINY, text, f"seed={value}"), f"seed={shown}: must be of type int")


# ----------------------------------------------------------------------------- whom to trust


def owned(main: Main) -> list[str]:
    """A callback that a config may not have: it makes a folder instead."""
    return ["+callbacks.x._target_=os.mkdir", f"+callbacks.x.path={main.home / 'OWNED'}"]


def assert_refused(main: Main, done: Main.Done) -> None:
    assert done.code == 2, done.err
    assert "callbacks.x._target_=os.mkdir: may not be called from a config" in done.err
    assert not (main.home / "OWNED").exists()


def test_the_command_line_may_allow_a_target_for_that_command(main: Main, text: str) -> None:
    assert_refused(main, main(*TINY, text, "trainer.max_steps=1", *owned(main)))
    main(*TINY, text, "trainer.max_steps=1", *owned(main), "allow_targets=[os.]")
    assert (main.home / "OWNED").is_dir()
    (main.home / "OWNED").rmdir()
    assert_refused(main, main(*TINY, text, "trainer.max_steps=1", *owned(main)))  # the same process, later
    main("-m", *TINY, text, "trainer.max_steps=1,2", *owned(main), "allow_targets=[os.]")
    assert (main.home / "OWNED").is_dir()


@pytest.mark.parametrize("value", ["''", "[1]", "a,b", "['']"])
def test_allowed_targets_are_a_list_of_prefixes(main: Main, text: str, value: str) -> None:
    assert main(*TINY, text, f"allow_targets={value}").code == 2


def test_a_single_prefix_is_not_taken_letter_by_letter(main: Main, text: str) -> None:
    done = main(*TINY, text, "trainer.max_steps=1", *owned(main), "allow_targets=o_nothing.")
    assert_refused(main, done)


def test_an_experiment_may_not_allow_a_target(main: Main, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "experiments"
    folder.mkdir(parents=True)
    (folder / "mean.yaml").write_text(
        "# @package _global_\nallow_targets: [os.]\n"
        f"callbacks:\n  x:\n    _target_: os.mkdir\n    path: {main.home / 'OWNED'}\n"
    )
    arguments = ["--config-dir", str(folder.parent), *TINY, text, "trainer.max_steps=1", "+experiments=mean"]
    assert_refused(main, main(*arguments[:-1], "experiments=mean"))


def test_a_sweep_may_not_allow_a_target(main: Main, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "sweeps"
    folder.mkdir(parents=True)
    (folder / "mean.yaml").write_text(
        "# @package _global_\n"
        f"callbacks:\n  x:\n    _target_: os.mkdir\n    path: {main.home / 'OWNED'}\n"
        "hydra:\n  sweeper:\n    params:\n      allow_targets: '[os.]'\n      seed: 1,2\n"
    )
    done = main("--config-dir", str(folder.parent), *TINY, text, "trainer.max_steps=1", "sweeps=mean")
    assert "callbacks.x._target_=os.mkdir: may not be called from a config" in done.err
    assert not (main.home / "OWNED").exists()


@pytest.mark.parametrize("key", ["resume", "reproduce"])
def test_a_saved_run_may_not_allow_a_target(main: Main, copy: Path, key: str) -> None:
    text = (copy / "config.yaml").read_text()
    assert "callbacks: {}\n" in text
    assert "allow_targets: []\n" in text
    (copy / "config.yaml").write_text(
        text.replace("allow_targets: []\n", "allow_targets:\n- os.\n").replace(
            "callbacks: {}\n", f"callbacks:\n  x:\n    _target_: os.mkdir\n    path: {main.home / 'OWNED'}\n"
        )
    )
    overrides = copy / ".hydra" / "overrides.yaml"
    overrides.write_text(overrides.read_text().rstrip("\n") + '\n- "allow_targets=[os.]"\n')
    assert_refused(main, main(f"{key}={copy}", "allow_drift=true", "tracker=none"))


def test_a_saved_command_line_is_taken_for_choices_only(tmp_path: Path) -> None:
    saved = ["task=pretrain", "model=gpt2", "~stages.dpo", "sweeps=depth_heads_width", "seed=3", "name=mine"]
    mean = [
        "allow_targets=[os.]",
        "+allow_targets=[os.]",
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra/launcher=x",
        "--config-dir=/tmp/mean",
        "-cd",
        "restore_code=true",
        "allow_drift=true",
        "reproduce=/tmp/mean",
        "run_dir=/etc",
        "experiments=../../../tmp/mean",
    ]
    (tmp_path / ".hydra").mkdir()
    listed = "".join(f"- {json.dumps(override)}\n" for override in [*saved, *mean])
    (tmp_path / ".hydra" / "overrides.yaml").write_text(listed)
    given = f"resume={tmp_path}"
    assert config.prepare([given]) == [*saved, given]
    assert config.prepare([given, "seed=4"]) == [*saved[:4], saved[5], given, "seed=4"]
