"""Every YAML of conf/benchmark is a benchmark that `task=benchmark` can run."""

from __future__ import annotations

from typing import Any

import pytest

from llm.checking import check
from llm.config import CONF, build, compose
from llm.runs.run import Run
from llm.tasks.benchmark import benchmark

NAMES = sorted(path.stem for path in (CONF / "benchmark").glob("*.yaml"))


GIVEN = {"curation": ["benchmark.path=texts"], "steps": ["benchmark.path=texts"]}
"""What only its user can give a benchmark."""


@pytest.mark.parametrize("name", NAMES)
def test_benchmark(name: str) -> None:
    assert (CONF / "benchmark" / f"{name}.yaml").read_text().startswith("# ")
    config = compose(["task=benchmark", f"benchmark={name}", *GIVEN.get(name, [])])
    check(config)
    component = build(config.benchmark)
    assert component.name == name
    assert callable(component.measure)


def test_task_logs_what_was_measured(tmp_path: Any) -> None:
    class Fixed:
        name = "fixed"

        def measure(self, run: Run) -> dict[str, float]:
            return {"ratio": 0.8, "seconds": 2.0}

    run = Run(tmp_path / "run")
    assert benchmark(run=run, benchmark=Fixed()) == 0.8
    assert run.summary == {"ratio": 0.8, "seconds": 2.0}
    assert '"ratio": 0.8' in (run.directory / "metrics.jsonl").read_text()
