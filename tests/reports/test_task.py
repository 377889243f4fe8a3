"""The report task, on runs as they lie on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm.reports import page
from llm.runs.run import Run
from llm.runs.session import session
from llm.tasks.report import report
from llm.types import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def make(folder: Path, value: float) -> str:
    with session({"name": "demo", "lr": value, "run_dir": str(folder)}) as run:
        for step in range(5):
            run.log({"loss": value * step}, step=step)
        run.summary["val_loss"] = value
    return str(folder)


def test_one_run_again(tmp_path) -> None:
    source = make(tmp_path / "a", 1.5)
    page.write(source, {"title": "kept title"})
    (tmp_path / "a" / "report.html").unlink()
    report(run=Run(tmp_path / "task"), source=source)
    assert "kept title" in (tmp_path / "a" / "report.html").read_text()


def test_several_are_compared(tmp_path) -> None:
    sources = [make(tmp_path / name, value) for name, value in (("a", 1.5), ("b", 2.5))]
    report(run=Run(tmp_path / "task"), source=sources)
    assert "| b | done | 2.500 | 2.5 |" in (tmp_path / "task" / "comparison.md").read_text()
    assert (tmp_path / "b" / "report.html").is_file()


def test_mistakes(tmp_path) -> None:
    good = make(tmp_path / "a", 1.5)
    for source in ([], [good, str(tmp_path / "absent")], str(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            report(run=Run(tmp_path / "task"), source=source)
        assert caught.value.key == "source"
    assert not (tmp_path / "a" / "report.html").exists()  # nothing is written when one of them is wrong


@pytest.mark.parametrize("name", ["tracker/wandb", "tracker/none", "task/report"])
def test_configs_name_what_exists_and_say_what_it_is(name: str) -> None:
    import importlib
    import inspect

    from omegaconf import OmegaConf

    path = REPOSITORY / "conf" / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    config = OmegaConf.load(path)
    module, _, attribute = config.pop("_target_").rpartition(".")
    config.pop("_partial_", None)
    assert set(config) <= set(
        inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    )
