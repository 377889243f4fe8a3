"""A grid sweep whose trials are known by what they are, not by when they ran.

A trial's folder is the fingerprint of its resolved config, so a rerun finds what is finished, and
two ways of writing the same cell are one trial. Cells that cannot be built are refused before the
first one starts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from llm.config import Invocation, composer, find, mistakes_in, resolved
from llm.types import ConfigError


class ContentSweeper(BasicSweeper):
    """Hydra's basic grid, with trials named by content and a ranked table at the end.

    Args:
        max_batch_size: Trials handed to the launcher at a time; None for all.
        params: The search space: config key to comma-separated values.
        metric: The final metric that ranks the trials.
        direction: Whether less or more of it is better.
        report: Dotted path of `write(sweep_dir, trials, metric, direction)`, whose result has the ranking
            for a terminal as `terminal`.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        metric: str = "val_loss",
        direction: str = "minimize",
        report: str | None = None,
    ) -> None:
        # In place of BasicSweeper's own, which fails when Hydra's search for plugins has run its module a
        # second time: it then names another class than the one this one derives from.
        self.overrides: Sequence[Sequence[Sequence[str]]] | None = None
        self.batch_index, self.max_batch_size, self.params = 0, max_batch_size, params or {}
        self.hydra_context = self.config = self.launcher = None
        self.metric, self.direction, self.report = metric, direction, report
        self.directory = Path()
        self.trials: list[dict[str, Any]] = []
        self.common: set[str] = set()

    def sweep(self, arguments: list[str]) -> Any:
        """Runs every possible cell that is not yet done, then ranks all of them."""
        from llm import runtime  # imports torch: not while Hydra looks for plugins

        assert self.config is not None
        choices = self.config.hydra.runtime.choices
        self.directory = sweep_directory(Invocation(choices, [], {}, True), self.config)
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(self.directory)
        # One process group for all trials: a second would find the first one's addresses in torchrun's store.
        with runtime.process_group():
            try:
                return super().sweep(arguments)
            finally:
                if runtime.is_main():
                    self._rank()

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The next cells; before the first of them, all are judged."""
        if self.batch_index == 0:
            self._plan()
        return super().get_job_batch()

    def _plan(self) -> None:
        """Leaves out the cells that cannot be built and those that say the same as another."""
        from llm import runtime

        assert self.overrides is not None
        every = [set(overrides) for batch in self.overrides for overrides in batch]
        self.common = set.intersection(*every) if len(every) > 1 else set()
        batches: list[list[Sequence[str]]] = []
        for batch in self.overrides:
            batches.append([])
            for overrides in batch:
                trial = self._trial(list(overrides), self._compose(overrides))
                if any(trial["directory"] == known["directory"] for known in self.trials):
                    continue
                self.trials.append(trial)
                if trial["status"] != "impossible":
                    batches[-1].append(overrides)
        self.overrides = batches
        if runtime.is_main():
            self._tell()
        if all(trial["status"] == "impossible" for trial in self.trials):
            refused = f"none of its {len(self.trials)} cells can be built (listed above)"
            raise ConfigError("sweeps", self.directory.name, refused)

    def _tell(self) -> None:
        """What is about to happen, to people."""
        counted = Counter(trial["status"] for trial in self.trials)
        for trial in self.trials:
            if trial["status"] == "impossible":
                print(f"refused {' '.join(trial['overrides'])}: {trial['reason']}", file=sys.stderr)
        possible = len(self.trials) - counted["impossible"]
        parts = [f"{possible} trial{'' if possible == 1 else 's'}"]
        parts += [f"{counted['done']} of them done before"] if counted["done"] else []
        assert self.config is not None
        again = ", run again" if self.config.retry_failed else "; retry_failed=true runs them again"
        parts += [f"{counted['failed']} failed before{again}"] if counted["failed"] else []
        parts += [f"{counted['impossible']} impossible cells refused"]
        print(f"sweep {self.directory}: {', '.join(parts)}", file=sys.stderr)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing more to do: `get_job_batch` has composed and checked every cell."""

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return config

    def _trial(self, overrides: list[str], config: DictConfig) -> dict[str, Any]:
        from llm.checking import check  # imports what the config names: not while Hydra looks for plugins
        from llm.runs.directory import fingerprint, is_done, read

        directory = self.directory / fingerprint(resolved(config))[:12]
        status, reason = "todo", ""
        try:
            check(config)
        except ExceptionGroup as error:
            status, reason = "impossible", "; ".join(str(one) for one in mistakes_in(error))
        else:
            if is_done(directory):
                status = "done"
            elif (directory / "config.yaml").is_file():
                status = read(directory).status
        return {
            "overrides": self._varied(overrides),
            "directory": directory,
            "status": status,
            "reason": reason,
            "objective": None,
        }

    def _varied(self, overrides: Sequence[str]) -> list[str]:
        """The overrides that differ between trials."""
        return [o for o in overrides if o not in self.common and not o.startswith(("hydra.", "sweeps="))]

    def _rank(self) -> None:
        from llm.runs.directory import read

        for trial in self.trials:
            if trial["status"] != "impossible" and (trial["directory"] / "config.yaml").is_file():
                record = read(trial["directory"])
                trial["status"] = record.status
                trial["objective"] = _metric(record.result.get("metrics") or {}, self.metric)
        if self.report and self.trials:
            written = find(self.report)(self.directory, self.trials, self.metric, self.direction)
            print(written.terminal, file=sys.stderr)


def _metric(metrics: Mapping[str, Any], name: str) -> Any:
    """A final metric; one of a lifecycle's stage is ``STAGE.NAME``."""
    if name in metrics:
        return metrics[name]
    stage, _, rest = name.partition(".")
    return _metric(metrics[stage], rest) if isinstance(metrics.get(stage), Mapping) else None


def cells(choice: str) -> list[list[str]]:
    """The overrides of every cell of a grid preset, such as ``sweeps=depth_heads_width``."""
    with composer():
        params = hydra.compose("config", [choice], return_hydra_config=True).hydra.sweeper.params or {}
        overrides = OverridesParser.create().parse_overrides(
            [f"{key}={value}" for key, value in params.items()]
        )
    return [cell for batch in BasicSweeper.split_arguments(overrides, None) for cell in batch]


def sweep_directory(invocation: Invocation, config: DictConfig) -> Path:
    """`runs/sweeps/<sweep>`: the preset's name, or the run's own for a sweep typed on the command line."""
    choice = invocation.choices.get("sweeps")
    return Path("runs") / "sweeps" / str(choice or config.get("name") or "command_line")
