from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llm import files
from llm.runs import directory
from llm.runs.directory import RunDirectory, fingerprint
from llm.types import ConfigError

CONFIG = {"seed": 1, "model": {"_target_": "llm.models.decoder.Decoder", "d_model": 128}, "lr": 3e-4}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_fingerprint_ignores_only_what_cannot_matter() -> None:
    base = fingerprint(CONFIG)
    assert (
        fingerprint({**CONFIG, "name": "x", "run_dir": "y", "tracker": {"mode": "online"}, "resume": "z"})
        == base
    )
    assert fingerprint(dict(reversed(CONFIG.items()))) == base
    assert fingerprint({**CONFIG, "seed": 2}) != base
    assert fingerprint({**CONFIG, "model": {**CONFIG["model"], "d_model": 129}}) != base
    # Only at the top level: a model called `name` inside a component may matter.
    assert fingerprint({**CONFIG, "model": {**CONFIG["model"], "name": "x"}}) != base


def test_claim_names_the_directory(tmp_path) -> None:
    claimed = RunDirectory.claim(CONFIG, name="quickstart", root=tmp_path)
    assert claimed.path.parent == tmp_path / "quickstart"
    assert re.fullmatch(r"\d{8}-\d{6}-" + fingerprint(CONFIG)[:8], claimed.path.name)
    again = RunDirectory.claim(CONFIG, name="quickstart", root=tmp_path)  # the same second or the next
    assert again.path != claimed.path


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "two words"])
def test_a_name_is_one_folder(tmp_path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunDirectory.claim(CONFIG, name=name, root=tmp_path / "runs")
    assert caught.value.key == "name"
    assert not (tmp_path / "runs").exists()


def test_another_run_is_not_touched(tmp_path) -> None:
    first = RunDirectory.claim(CONFIG, run_dir=tmp_path / "mine")
    first.write_config(CONFIG, overrides=["lr=3e-4"])
    first.write_result("done", wall_seconds=1.5)
    first.mark_done()
    first.release()
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run") as caught:
        RunDirectory.claim({**CONFIG, "seed": 2}, run_dir=tmp_path / "mine")
    assert caught.value.key == "run_dir"
    assert contents(tmp_path) == before


def test_a_folder_of_other_files_is_not_touched(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        RunDirectory.claim(CONFIG, run_dir=tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(ConfigError, match="a file, not a folder"):
        RunDirectory.claim(CONFIG, run_dir=tmp_path / "thesis.tex")


def test_an_empty_folder_can_be_claimed_once(tmp_path) -> None:
    claimed = RunDirectory.claim(CONFIG, run_dir=tmp_path)
    with pytest.raises(ConfigError, match="another process"):
        RunDirectory.claim(CONFIG, run_dir=tmp_path)
    claimed.release()
    RunDirectory.claim(CONFIG, run_dir=tmp_path).release()  # nothing was written: a crash before the start


def _race(run_dir: str, barrier, answers) -> None:
    barrier.wait()
    try:
        claimed = RunDirectory.claim(CONFIG, run_dir=run_dir)
        claimed.write_config(CONFIG)
        answers.put("mine")
        barrier.wait()
    except ConfigError as error:
        answers.put(error.key)
        barrier.wait()


def test_of_many_processes_one_claims(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_race, args=(str(tmp_path / "r"), barrier, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    got = sorted(answers.get(timeout=20) for _ in workers)
    for worker in workers:
        worker.join()
    assert got == ["mine", "run_dir", "run_dir", "run_dir"]


def test_files_of_a_run(tmp_path) -> None:
    claimed = RunDirectory.claim(CONFIG, run_dir=tmp_path)
    claimed.write_config(
        CONFIG,
        overrides=["lr=3e-4", 'prompt="a, b"'],
        hydra={"job": {"name": "main"}},
        composed={"a": "${b}", "b": 1},
    )
    claimed.write_result("running")
    assert not directory.is_done(tmp_path)
    claimed.write_result("done", metrics={"val_loss": 1.25, "bad": float("nan")})
    assert not directory.is_done(tmp_path)
    claimed.mark_done()
    assert directory.is_done(tmp_path)
    hydra = tmp_path / ".hydra"
    assert OmegaConf.to_container(OmegaConf.load(hydra / "overrides.yaml")) == ["lr=3e-4", 'prompt="a, b"']
    assert OmegaConf.load(hydra / "hydra.yaml").hydra.job.name == "main"
    assert OmegaConf.to_container(OmegaConf.load(hydra / "config.yaml")) == {"a": "${b}", "b": 1}
    assert files.read_json(tmp_path / "done.json")["fingerprint"] == fingerprint(CONFIG)
    record = directory.read(tmp_path)
    assert record.config == CONFIG
    assert record.status == "done"
    assert record.result["metrics"] == {"val_loss": 1.25, "bad": "NaN"}
    assert record.metrics == []


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "${",
        r"\${a}",
        r"\\${a}",
        "1e-3",
        "1e3",
        "0x10",
        "yes",
        "null",
        "a: b",
        "# x",
        "é\n\t",
    ],
)
def test_yaml_reads_back_exactly(tmp_path, value: str) -> None:
    config = {
        "prompt": value,
        "list": [value, 1e-5, 0.1, 10**20, True, None],
        "nested": {"deep": {"x": value}},
    }
    (tmp_path / "c.yaml").write_text(directory.to_yaml(config), encoding="utf-8")
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "c.yaml"), resolve=True) == config


def test_reopen(tmp_path) -> None:
    claimed = RunDirectory.claim(CONFIG, run_dir=tmp_path)
    claimed.write_config(CONFIG)
    claimed.write_result("done")
    claimed.mark_done()
    with pytest.raises(ConfigError, match="another process") as caught:
        RunDirectory.reopen(tmp_path, CONFIG)
    assert caught.value.key == "resume"
    claimed.release()
    longer = {**CONFIG, "max_steps": 20}
    again = RunDirectory.reopen(tmp_path, longer)
    assert not directory.is_done(tmp_path)
    again.write_config(longer)
    assert directory.read(tmp_path).config == longer
    kept = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.before-resume-1.yaml"))
    assert kept == CONFIG


def test_what_is_not_a_run(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no such directory") as caught:
        directory.read(tmp_path / "absent", key="reproduce")
    assert caught.value.key == "reproduce"
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        directory.read(tmp_path)
    (tmp_path / "runs" / "demo" / "20250101-000000-0123abcd").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "20250101-000000-0123abcd" / "config.yaml").write_text("a: 1")
    for folder in ("runs", "runs/demo"):
        with pytest.raises(ConfigError, match=r"the newest is .*20250101-000000-0123abcd"):
            directory.read(tmp_path / folder)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        directory.read(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "result.json").write_text("{torn")
    with pytest.raises(ConfigError, match=r"result\.json cannot be read"):
        directory.read(tmp_path)


def test_torn_last_line_is_left_out(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": "NaN"}\n{"step": 3, "lo')
    first, second = directory.read_metrics(path)
    assert first == {"step": 1, "loss": 2.5}
    assert second["loss"] != second["loss"]


def test_nested_metrics_become_names() -> None:
    nested = {"sft": {"loss": 1.0, "exam": {"accuracy": 0.5}}, "n": 3}
    assert directory.flat(nested) == {"sft.loss": 1.0, "sft.exam.accuracy": 0.5, "n": 3}
    assert list(directory.flat(nested, "/")) == ["sft/loss", "sft/exam/accuracy", "n"]
