"""task=validate: compose every experiment and sweep, and hold each against the code it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from llm.checking import check
from llm.config import REPOSITORY, compose, mistakes_in
from llm.runs.run import Run
from llm.sweeping.content import cells as sweep_cells
from llm.types import ConfigError


def validate(*, run: Run, only: str | None = None) -> float:
    """Composes and checks every task, experiment and sweep; says all mistakes of all of them at once.

    Args:
        run: The record; its table lists what was checked.
        only: A regular expression; checks just the names it finds, such as ``experiments=``.

    Returns:
        How many were checked.

    Raises:
        ExceptionGroup: of ConfigError, one for each mistake.
        ConfigError: `only` finds nothing.
    """
    found: list[ConfigError] = []
    rows = []
    for choice in _chosen(only):
        mistakes = (
            [m for m in _mistakes(choice) if m.value != "???"]
            if choice.startswith("task=")
            else _mistakes(choice)
        )
        found += [ConfigError(f"{choice}: {m.key}", m.value, m.mend) for m in mistakes]
        rows.append((choice, len(mistakes)))
        run.say(f"{'ok' if not mistakes else 'WRONG':>5}  {choice}")
    run.log_table("validated", ["config", "mistakes"], rows)
    run.summary.update(checked=len(rows), mistakes=len(found))
    if found:
        raise ExceptionGroup("some configs are wrong", found)
    return float(len(rows))


def _chosen(only: str | None) -> list[str]:
    try:
        chosen = [choice for choice in _choices() if re.search(only or "", choice)]
    except re.error as error:
        raise ConfigError("only", only, f"is not a regular expression: {error}") from None
    if not chosen:
        raise ConfigError("only", only, "finds none; for example only=experiments= or only=sweeps=NAME")
    return chosen


def _choices() -> Iterator[str]:
    """Every task alone (its required values may be open), then every experiment and sweep."""
    for group, folder in (("task", REPOSITORY / "conf" / "task"), ("experiments", REPOSITORY / "experiments"),
                          ("sweeps", REPOSITORY / "sweeps")):  # fmt: skip
        for path in sorted(folder.rglob("*.yaml")):
            yield f"{group}={_option(path, folder)}"


def _option(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _mistakes(choice: str) -> list[ConfigError]:
    """The mistakes of a choice; of a sweep, those of its first cell, when not one of them can run."""
    cells = [[choice, *cell] for cell in sweep_cells(choice)] if choice.startswith("sweeps=") else [[choice]]
    found: list[ConfigError] = []
    for overrides in cells:
        try:
            config = compose(overrides)
            if "_target_" not in config:
                raise ConfigError(
                    choice, "", "its root names no _target_; is `# @package _global_` its first line?"
                )
            check(config)
        except (ConfigError, ExceptionGroup) as error:
            found = found or mistakes_in(error)
        else:
            return []
    return found
