from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm.benchmarks import composition
from llm.benchmarks.composition import Composition
from llm.runs.run import Run
from llm.types import ConfigError


def test_measures_whole_processes_of_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    actual = composition._run

    def watched(arguments: Any, folder: str) -> None:
        ran.append(list(arguments))
        if arguments[0].endswith("hello.py"):
            actual(arguments, folder)  # the reference must be an app that works

    monkeypatch.setattr(composition, "_run", watched)
    metrics = Composition(n_rounds=1).measure(Run(tmp_path / "run"))
    assert next(iter(metrics)) == "ratio_pretrain"
    assert {"ratio_lifecycle", "seconds_hello", "seconds_pretrain", "seconds_lifecycle"} <= set(metrics)
    assert metrics["seconds_hello"] > 0.05
    mains = [arguments[1:] for arguments in ran if arguments[0].endswith("main.py")]
    assert mains.count(["task=pretrain"]) == 2
    assert mains.count([]) == 2
    table = json.loads((tmp_path / "run" / "tables" / "timings.json").read_text())
    assert table["columns"] == ["hello", "pretrain", "lifecycle"]
    assert len(table["rows"]) == 1


def test_a_failing_process_is_not_a_time(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with"):
        composition._run([str(tmp_path / "none.py")], str(tmp_path))


def test_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "REPOSITORY", tmp_path)
    with pytest.raises(ConfigError, match="checkout"):
        Composition().measure(Run(tmp_path / "run"))
