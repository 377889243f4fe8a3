"""`task=report`: writes the report page of a finished run again, or compares several runs."""

from __future__ import annotations

from pathlib import Path

from llm.reports import compare, page
from llm.runs import directory
from llm.runs.run import Run
from llm.types import ConfigError


def report(*, run: Run, source: str | list[str]) -> None:
    """Writes `report.html` of one run anew, or a table and a plot of several.

    Args:
        run: this task's own run; the comparison is written in its directory.
        source: a run directory, or several.

    Raises:
        ConfigError: `source` is empty, or one of it is not a run directory.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise ConfigError("source", source, "name at least one run directory")
    records = [
        directory.read(one, key="source") for one in sources
    ]  # all of them, before anything is written
    if not run.is_main:
        return
    for record in records:
        run.say(f"report: {page.write(record.directory)}")
    if len(records) > 1:
        run.say(f"comparison: {compare.runs(records, run.directory)}")
